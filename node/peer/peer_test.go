package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"vmctl/node/wire"
)

// host is one end under test: an identity (or none), listening on loopback.
type host struct {
	id   *Identity
	addr string
}

const purposeEcho = "echo"

func echo(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	var text string
	_ = Answer(conn, &text, func() (any, error) { return hello.Node + ":" + text, nil })
}

func serve(t *testing.T, server *Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func startNode(t *testing.T, id *Identity, members ...string) *host {
	gate := NodeGate{
		Identity: func() *Identity { return id },
		Member: func(node string) error {
			for _, m := range members {
				if m == node {
					return nil
				}
			}
			return errors.New(node + " has left the cluster")
		},
	}
	handlers := map[string]Handler{
		purposeEcho: echo,
		PurposeJoin: func(_ context.Context, conn *wire.Conn, _ wire.Hello) {
			var request JoinRequest
			_ = Answer(conn, &request, func() (any, error) {
				if string(request.Secret) != "0123456789abcdef" {
					return nil, &wire.Refused{Code: "conflict", Message: "token already used"}
				}
				return id.Admit(request, []byte("extra"))
			})
		},
	}
	return &host{id: id, addr: serve(t, &Server{Self: "server", Gate: gate, Handlers: handlers})}
}

func found(t *testing.T, node string) *Identity {
	t.Helper()
	id, err := Found("cluster-of-"+node, "shop", node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func joinToken(id *Identity) Token {
	return Token{Kind: JoinToken, Secret: []byte("0123456789abcdef"), Fingerprint: Fingerprint(id.CACert)}
}

func TestJoinThenTalk(t *testing.T) {
	a := startNode(t, found(t, "a"), "b")
	id, extra, err := Join(t.Context(), a.addr, joinToken(a.id), "b", "10.0.0.2:7440")
	if err != nil || string(extra) != "extra" || id.Node != "b" || id.Cluster != a.id.Cluster {
		t.Fatal(id, extra, err)
	}
	reopened, err := Open(id.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := reopened.Dial(t.Context(), Remote{Name: "a", Addr: a.addr}, purposeEcho, "", wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var reply string
	if err := Ask(conn, "hi", &reply); err != nil || reply != "b:hi" {
		t.Fatal(reply, err)
	}
}

func TestJoinRefused(t *testing.T) {
	a := startNode(t, found(t, "a"))
	used := joinToken(a.id)
	used.Secret = []byte("ffffffffffffffff")
	_, _, err := Join(t.Context(), a.addr, used, "b", "")
	var refused *wire.Refused
	if !errors.As(err, &refused) || refused.Code != "conflict" {
		t.Fatalf("a used token: %v", err)
	}
	other := joinToken(found(t, "x"))
	if _, _, err := Join(t.Context(), a.addr, other, "b", ""); !errors.Is(err, ErrStranger) {
		t.Fatalf("a token of another cluster must not be shown to this one: %v", err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	a := startNode(t, found(t, "a"), "b")
	b, _, err := Join(t.Context(), a.addr, joinToken(a.id), "b", "")
	if err != nil {
		t.Fatal(err)
	}
	gone, _, err := Join(t.Context(), a.addr, joinToken(a.id), "gone", "")
	if err != nil {
		t.Fatal(err)
	}
	x := found(t, "b") // same node name, own cluster
	forged := *x
	forged.Cluster = a.id.Cluster
	borrowed := *b
	borrowed.Node = "a"
	tests := []struct {
		name string
		id   *Identity
		to   Remote
		want string
	}{
		{"another cluster", x, Remote{Addr: a.addr, Fingerprint: Fingerprint(a.id.Cert)}, "another cluster"},
		{"another cluster that claims to be ours", &forged, Remote{Addr: a.addr, Fingerprint: Fingerprint(a.id.Cert)}, "not signed by this cluster"},
		{"another cluster's view of the server", x, Remote{Name: "a", Addr: a.addr}, "not signed by this cluster"},
		{"name of another node", &borrowed, Remote{Name: "a", Addr: a.addr}, "not \"a\""},
		{"member that left", gone, Remote{Name: "a", Addr: a.addr}, "has left"},
		{"server is another node than meant", b, Remote{Name: "c", Addr: a.addr}, "not \"c\""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := test.id.Dial(t.Context(), test.to, purposeEcho, "", wire.Options{})
			if err == nil {
				conn.Close()
				t.Fatal("was let in")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestNoCertificateNoService(t *testing.T) {
	a := startNode(t, found(t, "a"), "b")
	raw, err := dialTLS(t.Context(), a.addr, nil, pinned(Fingerprint(a.id.Cert)), dialTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := greet(raw, wire.Hello{Cluster: a.id.Cluster, Node: "b", Purpose: purposeEcho}, wire.Options{}, dialTimeout); !errors.Is(err, wire.ErrRefused) {
		t.Fatal(err)
	}
}

func TestWitness(t *testing.T) {
	certDER, keyDER, err := NewWitnessPair("w")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := OpenWitnessPair(certDER, keyDER)
	if err != nil {
		t.Fatal(err)
	}
	enrolled := map[string][]byte{}
	gate := WitnessGate{Pair: pair, Authority: func(cluster string) ([]byte, error) {
		if der := enrolled[cluster]; der != nil {
			return der, nil
		}
		return nil, errors.New("cluster is not enrolled here")
	}}
	addr := serve(t, &Server{Self: "w", Gate: gate, Handlers: map[string]Handler{
		purposeEcho: echo,
		PurposeEnrol: func(_ context.Context, conn *wire.Conn, _ wire.Hello) {
			var request EnrolRequest
			_ = Answer(conn, &request, func() (any, error) {
				enrolled[request.Cluster] = request.CACert
				return EnrolReply{Witness: "w"}, nil
			})
		},
	}})
	id, token := found(t, "a"), Token{Kind: WitnessToken, Secret: []byte("0123456789abcdef"), Fingerprint: Fingerprint(certDER)}
	to := Remote{Addr: addr, Fingerprint: token.Fingerprint}
	if _, err := id.Dial(t.Context(), to, purposeEcho, "", wire.Options{}); !errors.Is(err, wire.ErrRefused) {
		t.Fatalf("before it is enrolled: %v", err)
	}
	if reply, err := id.Enrol(t.Context(), addr, token); err != nil || reply.Witness != "w" {
		t.Fatal(reply, err)
	}
	conn, err := id.Dial(t.Context(), to, purposeEcho, "", wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	to.Fingerprint = Fingerprint(id.Cert)
	if _, err := id.Dial(t.Context(), to, purposeEcho, "", wire.Options{}); !errors.Is(err, ErrStranger) {
		t.Fatalf("another witness at the address: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	if _, err := found(t, "a").Dial(t.Context(), Remote{Name: "b", Addr: addr}, purposeEcho, "", wire.Options{}); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
}

func TestServerWithoutCluster(t *testing.T) {
	gate := NodeGate{Identity: func() *Identity { return nil }}
	addr := serve(t, &Server{Self: "a", Gate: gate})
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		conn.Close()
		t.Fatal("a node without a cluster shook hands")
	}
}

func TestServeEndsWithOpenConnections(t *testing.T) {
	id := found(t, "a")
	gate := NodeGate{Identity: func() *Identity { return id }, Member: func(string) error { return nil }}
	blocked := make(chan struct{})
	server := &Server{Self: "a", Gate: gate, Log: slog.New(slog.DiscardHandler), Handlers: map[string]Handler{
		"wait": func(_ context.Context, conn *wire.Conn, _ wire.Hello) { close(blocked); _, _, _ = conn.Receive() },
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	conn, err := id.Dial(ctx, Remote{Name: "a", Addr: listener.Addr().String()}, "wait", "", wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-blocked
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve did not end with its context")
	}
}

func TestTokens(t *testing.T) {
	token, err := NewToken(JoinToken, []byte("certificate"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken(" "+token.String()+"\n", JoinToken)
	if err != nil || got.Hash() != token.Hash() {
		t.Fatal(got, err)
	}
	for _, text := range []string{"", "hello", token.String()[:20], tokenPrefix + "!!!", token.String() + "%"} {
		if _, err := ParseToken(text, JoinToken); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseToken(token.String(), WitnessToken); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "witness token is needed") {
		t.Fatal(err)
	}
}

func FuzzParseToken(f *testing.F) {
	token, _ := NewToken(JoinToken, []byte("x"))
	f.Add(token.String())
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text, JoinToken); err == nil && len(token.Fingerprint) != 32 {
			t.Fatal("a token without a fingerprint")
		}
	})
}

// TestIdleStrangers fills the door with connections that say nothing: another
// address still gets in.
func TestIdleStrangers(t *testing.T) {
	a := startNode(t, found(t, "a"), "b")
	b, _, err := Join(t.Context(), a.addr, joinToken(a.id), "b", "")
	if err != nil {
		t.Fatal(err)
	}
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	for range 2 * maxHandshakes {
		conn, err := stranger.DialContext(t.Context(), "tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	conn, err := b.Dial(t.Context(), Remote{Name: "a", Addr: a.addr}, purposeEcho, "", wire.Options{})
	if err != nil {
		t.Fatal("the peer is kept out by a stranger:", err)
	}
	conn.Close()
}
