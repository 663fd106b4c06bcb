package witness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/node/witness/porter"
)

// childDir, set, makes the test's program a witness of that state directory.
const childDir = "VMCTL_TEST_WITNESS"

// isPorter, set, makes it a witness's porter.
const isPorter = "VMCTL_TEST_PORTER"

func TestMain(m *testing.M) {
	if os.Getenv(isPorter) != "" {
		if err := porter.Main(context.Background(), slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintln(os.Stderr, "porter:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(childDir); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := Run(ctx, config(dir), func(addr string) { fmt.Println(addr) })
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs a witness in a process of its own.
func child(t *testing.T, dir string) (cmd *exec.Cmd, addr string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// kill ends a child as a power cut does: it may be called again.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func config(dir string) Config {
	return Config{
		Name: "w", StateDir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
		Porter: porter.Command{Path: "/proc/self/exe", Args: []string{"porter"}, Env: append(os.Environ(), isPorter+"=1")},
	}
}

// start runs a witness in this process; stop waits for its end.
func start(t *testing.T, dir string) (addr string, stop func()) {
	t.Helper()
	return startWith(t, config(dir))
}

func startWith(t *testing.T, config Config) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- Run(ctx, config, func(addr string) { ready <- addr }) }()
	ended := false
	stop = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			t.Errorf("the witness ended: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case addr = <-ready:
	case err := <-done:
		ended = true
		t.Fatalf("the witness did not start: %v", err)
	}
	return addr, stop
}

func readToken(t *testing.T, dir string) peer.Token {
	t.Helper()
	text, err := ReadToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	token, err := peer.ParseToken(text, peer.WitnessToken)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// found makes the first node of a cluster.
func found(t *testing.T, name, node string) *peer.Identity {
	t.Helper()
	id, err := peer.Found(uuid.NewString(), name, node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// second makes another node of the cluster, as a join does.
func second(t *testing.T, id *peer.Identity, node string) *peer.Identity {
	t.Helper()
	token := peer.Token{Kind: peer.JoinToken, Secret: make([]byte, 20), Fingerprint: peer.Fingerprint(id.CACert)}
	gate := peer.NodeGate{Identity: func() *peer.Identity { return id }, Member: func(string) error { return nil }}
	server := &peer.Server{Self: id.Node, Gate: gate, Log: slog.New(slog.DiscardHandler), Handlers: map[string]peer.Handler{
		peer.PurposeJoin: func(_ context.Context, conn *wire.Conn, _ wire.Hello) {
			var request peer.JoinRequest
			_ = peer.Answer(conn, &request, func() (any, error) { return id.Admit(request, nil) })
		},
	}}
	ctx, cancel := context.WithCancel(t.Context())
	listener := listen(t)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	defer func() { cancel(); <-done }()
	other, _, err := peer.Join(ctx, listener.Addr().String(), token, node, "")
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestEnrolOnce(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	shop, bank := found(t, "shop", "a"), found(t, "bank", "a")
	token := readToken(t, dir)
	wrong := token
	wrong.Secret = make([]byte, 20)
	if code := refusal(enrol(shop, addr, wrong)); code != api.Unsafe {
		t.Errorf("a wrong token: %q", code)
	}
	if reply, err := shop.Enrol(t.Context(), addr, token); err != nil || reply.Witness != "w" {
		t.Fatal(reply, err)
	}
	if code := refusal(enrol(bank, addr, token)); code != api.Unsafe {
		t.Errorf("a used token: %q", code)
	}
	if now := readToken(t, dir); string(now.Secret) == string(token.Secret) {
		t.Error("the token is not a new one")
	}
	if err := enrol(bank, addr, readToken(t, dir)); err != nil {
		t.Errorf("a second cluster: %v", err)
	}
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Errorf("a cluster that enrols again: %v", err)
	}
	elsewhere := token
	elsewhere.Fingerprint = peer.Fingerprint(shop.Cert)
	if err := enrol(shop, addr, elsewhere); !errors.Is(err, peer.ErrStranger) {
		t.Errorf("a token of another witness: %v", err)
	}
}

// served waits until somebody answers at the witness's door: a porter may have
// to be started, which takes this machine longer than a node waits before it
// tries again.
func served(addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return // what comes next says so
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = conn.Write([]byte("nothing of TLS\n"))
	_, _ = conn.Read(make([]byte, 1))
}

func enrol(id *peer.Identity, addr string, token peer.Token) error {
	served(addr)
	_, err := id.Enrol(context.Background(), addr, token)
	return err
}

func refusal(err error) api.Code {
	var refused *wire.Refused
	if !errors.As(err, &refused) {
		return ""
	}
	return api.Code(refused.Code)
}

// Whoever holds a good token gets a place of its own and nothing of others'.
func TestEnrolmentsThatReachForOthers(t *testing.T) {
	dir := t.TempDir()
	addr, stop := start(t, dir)
	shop := found(t, "shop", "a")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*peer.Sealed){
		"the id of another cluster":    func(s *peer.Sealed) { s.Cluster = shop.Cluster },
		"an id inside another's keys":  func(s *peer.Sealed) { s.Cluster = shop.Cluster + "/x" },
		"an id in another form":        func(s *peer.Sealed) { s.Cluster = strings.ToUpper(s.Cluster) },
		"no id":                        func(s *peer.Sealed) { s.Cluster = "" },
		"no name":                      func(s *peer.Sealed) { s.ClusterName = "" },
		"a name that moves the cursor": func(s *peer.Sealed) { s.ClusterName = "\x1b[2J" },
	} {
		stranger := *found(t, "evil", "a")
		change(&stranger.Sealed)
		token := readToken(t, dir)
		if code := refusal(enrol(&stranger, addr, token)); code != api.Unsafe && code != api.Usage {
			t.Errorf("%s: %q", name, code)
		}
		if now := readToken(t, dir); string(now.Secret) != string(token.Secret) {
			t.Errorf("%s used the token up", name)
		}
	}
	stop()
	addr, _ = start(t, dir)
	c := dial(t, shop, addr, dir)
	c.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a"})
}

func TestStateDirectory(t *testing.T) {
	dir := t.TempDir()
	_, stop := start(t, dir)
	first := readToken(t, dir)
	err := Run(t.Context(), config(dir), func(string) { t.Error("two witnesses on one state directory") })
	if api.AsError(err).Code != api.Conflict {
		t.Errorf("a second witness: %v", err)
	}
	stop()
	_, stop = start(t, dir)
	if again := readToken(t, dir); peer.WitnessID(again.Fingerprint) != peer.WitnessID(first.Fingerprint) || string(again.Secret) != string(first.Secret) {
		t.Error("a restart changed the witness's id or its token")
	}
	stop()
	for _, damaged := range []string{"", "vmctl-", "nonsense\n"} {
		if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stop = start(t, dir)
		if again := readToken(t, dir); peer.WitnessID(again.Fingerprint) != peer.WitnessID(first.Fingerprint) {
			t.Errorf("token file %q: another id", damaged)
		}
		stop()
	}
	other := t.TempDir()
	_, _ = start(t, other)
	if id := peer.WitnessID(readToken(t, other).Fingerprint); id == peer.WitnessID(first.Fingerprint) {
		t.Error("a new state directory has the old id")
	}
	info, err := os.Stat(filepath.Join(other, tokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token can be read by others: %v, %v", info.Mode(), err)
	}
}

func TestBadConfig(t *testing.T) {
	busy := listen(t)
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Config)
		code   api.Code
	}{
		"no address":        {func(c *Config) { c.Listen = "nonsense" }, api.Usage},
		"no port":           {func(c *Config) { c.Listen = "127.0.0.1:" }, api.Usage},
		"another's address": {func(c *Config) { c.Listen = "192.0.2.1:7441" }, api.Usage},
		"a busy address":    {func(c *Config) { c.Listen = busy.Addr().String() }, api.Conflict},
		"no name":           {func(c *Config) { c.Name = "" }, api.Usage},
		"no directory":      {func(c *Config) { c.StateDir = "" }, api.Usage},
		"a file":            {func(c *Config) { c.StateDir = file }, api.Failed},
		"inside a file":     {func(c *Config) { c.StateDir = file + "/x" }, api.Failed},
	} {
		c := config(t.TempDir())
		test.change(&c)
		err := Run(t.Context(), c, func(string) { t.Errorf("%s: it runs", name) })
		if err == nil || api.AsError(err).Code != test.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
