package peer

import (
	"errors"
	"net"
	"testing"
	"time"

	"vmctl/node/wire"
)

// slowly passes on connections to addr, everything later by delay.
func slowly(t *testing.T, addr string, delay time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		for buffer := make([]byte, 64<<10); ; {
			n, err := from.Read(buffer)
			time.Sleep(delay)
			if n > 0 {
				_, _ = to.Write(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				return
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	return listener.Addr().String()
}

// TestJoinByASlowLink: what a person does by hand may take longer than a lease
// allows a link that guests depend on.
func TestJoinByASlowLink(t *testing.T) {
	t.Parallel()
	a := startNode(t, found(t, "a"), "b")
	addr := slowly(t, a.addr, dialTimeout/2+dialTimeout/10)
	id, _, err := Join(t.Context(), addr, joinToken(a.id), "b", "10.0.0.2:7440")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := id.Dial(t.Context(), Remote{Name: "a", Addr: addr}, purposeEcho, "", wire.Options{})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("a link that guests depend on waited longer: %v", err)
	}
	if err == nil {
		_ = conn.Close()
	}
}
