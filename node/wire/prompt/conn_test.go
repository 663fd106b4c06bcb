package prompt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pairs are two connected sockets of each kind.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	all := map[string][2]net.Conn{}
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		near, err := net.Dial(network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		all[network] = [2]net.Conn{New(near), New(far)}
	}
	return all
}

// Far more than the sockets hold, both ways at once.
func TestBytesArriveInOrder(t *testing.T) {
	for network, pair := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			sent := make([]byte, 9<<20+3)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(sent)
			failed := make(chan error, 4)
			for i, conn := range pair {
				go func() {
					n, err := conn.Write(sent[i:])
					if err == nil && n != len(sent)-i {
						err = io.ErrShortWrite
					}
					failed <- err
				}()
				go func() {
					got := make([]byte, len(sent)-(1-i))
					_, err := io.ReadFull(conn, got)
					if err == nil && !bytes.Equal(got, sent[1-i:]) {
						err = errors.New("other bytes arrived")
					}
					failed <- err
				}()
			}
			for range 4 {
				if err := <-failed; err != nil {
					t.Fatal(err)
				}
			}
			if err := pair[0].Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := pair[1].Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

func TestDeadlinesAndCloseEndWaiting(t *testing.T) {
	for network, pair := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			conn := pair[0]
			if err := conn.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
			n := 0
			for bound := 50 * time.Millisecond; n == 0 && bound < time.Minute; bound *= 2 { // it may be over before the first byte
				if err := conn.SetDeadline(time.Now().Add(bound)); err != nil {
					t.Fatal(err)
				}
				var err error
				if n, err = conn.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("write: %d, %v", n, err)
				}
			}
			if n == 0 {
				t.Error("nothing was written of what there was room for")
			}
			if err := conn.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 2)
			go func() { _, err := conn.Read(make([]byte, 1)); ended <- err }()
			go func() { _, err := conn.Write(make([]byte, 64<<20)); ended <- err }()
			time.AfterFunc(10*time.Millisecond, func() { conn.Close() })
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("closed meanwhile: %v", err)
				}
			}
		})
	}
}

// A peer that is gone is an error, and no signal.
func TestWriteToNobody(t *testing.T) {
	for network, pair := range pairs(t) {
		t.Run(network, func(t *testing.T) {
			if err := pair[1].Close(); err != nil {
				t.Fatal(err)
			}
			for range 100 {
				if _, err := pair[0].Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
			t.Error("nothing failed")
		})
	}
}

func TestConnWithoutADescriptorStaysAsItIs(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if New(near) != near {
		t.Error("it was wrapped")
	}
}
