package node_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// badFrames are what a live agent must outlive, whoever sends it. The sender
// closes its side after each.
var badFrames = map[string][]byte{
	"nothing":                 {},
	"cut in the header":       {0, 0},
	"cut in the body":         {0, 0, 1, 0, 0x10, 0x80},
	"oversized":               {0x7f, 0xff, 0xff, 0xff, 0x10, 0x80},
	"of a negative length":    {0xff, 0xff, 0xff, 0xff},
	"empty":                   {0, 0, 0, 0},
	"without a body":          {0, 0, 0, 1, 0x10},
	"of nonsense":             append([]byte{0, 0, 0, 9, 0x10}, bytes.Repeat([]byte{0xc1}, 8)...),
	"that promises much":      {0, 0, 0, 6, 0x10, 0xdd, 0xff, 0xff, 0xff, 0xff}, // an array of 2^32 elements
	"of another protocol":     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	"of an unknown kind":      {0, 0, 0, 2, 0x7b, 0x80},
	"of the handshake, again": {0, 0, 0, 2, 0x01, 0x80},
}

// A stranger's malformed frames end its connection and nothing else.
func TestBadFramesOfAStranger(t *testing.T) {
	t.Parallel()
	a, b := startAgent(t, "a"), startAgent(t, "b")
	if _, err := a.Init(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	for what, frame := range badFrames {
		conn, err := tls.Dial("tcp", a.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		hangsUp(t, what, conn, frame)
	}
	if _, err := b.Join(t.Context(), a.addr, a.token(t)); err != nil {
		t.Errorf("after all that a peer cannot join: %v", err)
	}
}

// A member's malformed frames end that connection and nothing else, on a
// connection of any purpose.
func TestBadFramesOfAMember(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	if _, err := a.Init(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	v, err := a.Create(ctx, []byte("{name: web, memory: 64M}"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := peer.ParseToken(a.token(t), peer.JoinToken)
	if err != nil {
		t.Fatal(err)
	}
	member, _, err := peer.Join(ctx, a.addr, token, "b", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, purpose := range []string{"lease", "records", "disks", "checkpoint", "boot", "trial", "api"} {
		for what, frame := range badFrames {
			hangsUp(t, purpose+", "+what, dialAs(t, member, a.addr, purpose, v.UUID), frame)
		}
	}
	if again, err := a.VM(ctx, "web"); err != nil || again.UUID != v.UUID || again.Owner != "a" || again.Epoch != v.Epoch {
		t.Errorf("after all that: %+v, %v", again, err)
	}
}

// dialAs connects as a member does, and gives what is under the frames.
func dialAs(t *testing.T, member *peer.Identity, addr, purpose, guest string) *tls.Conn {
	t.Helper()
	key, err := x509.ParseECPrivateKey(member.Key)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{member.Cert, member.CACert}, PrivateKey: key}
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{Cluster: member.Cluster, Node: member.Node, Purpose: purpose, Guest: guest}
	if _, err := wire.Greet(wire.NewConn(conn, wire.Options{}), hello); err != nil {
		t.Fatalf("%s: %v", purpose, err)
	}
	return conn
}

// hangsUp sends a frame and the end of the stream, and expects the agent to end
// the connection too.
func hangsUp(t *testing.T, what string, conn *tls.Conn, frame []byte) {
	t.Helper()
	defer conn.Close()
	if _, err := conn.Write(frame); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_ = conn.CloseWrite() // it may have hung up already
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frame %s: the agent keeps the connection", what)
	}
}

// What calls itself a node of the cluster and answers a join with malformed
// frames leaves nothing half-made here.
func TestBadFramesInAnswerToAJoin(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	certDER, keyDER, err := peer.NewWitnessPair("x")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := peer.OpenWitnessPair(certDER, keyDER)
	if err != nil {
		t.Fatal(err)
	}
	welcome := frameOf(2, map[string]any{"version": 1, "node": "x"})
	before := a.files(t)
	for what, frame := range badFrames {
		for name, answer := range map[string][]byte{"at once": frame, "after a good handshake": slices.Concat(welcome, frame)} {
			token, err := peer.NewToken(peer.JoinToken, certDER)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Join(t.Context(), answers(t, pair, answer), token.String())
			want(t, what+" "+name, err, api.Failed, "join through")
			if after := a.files(t); !slices.Equal(before, after) {
				t.Errorf("%s %s left %v", what, name, after)
			}
			want(t, "the cluster after "+what, of(a.Cluster(t.Context())), api.Conflict, "cluster init")
		}
	}
	if _, err := a.Init(t.Context(), "shop"); err != nil {
		t.Errorf("after all that no cluster can be made: %v", err)
	}
}

// answers is a server that shows a certificate, answers the first words with the
// same bytes, and hangs up.
func answers(t *testing.T, pair tls.Certificate, answer []byte) (addr string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 4096)); err == nil {
			_, _ = conn.Write(answer)
		}
	}()
	return listener.Addr().String()
}

// frameOf is a well-formed frame.
func frameOf(kind wire.Kind, body any) []byte {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = wire.NewConn(near, wire.Options{}).Send(kind, body)
		near.Close()
	}()
	frame, err := io.ReadAll(far)
	if err != nil || len(frame) < 4 || int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		panic("a frame of " + strings.TrimSpace(err.Error()))
	}
	return frame
}
