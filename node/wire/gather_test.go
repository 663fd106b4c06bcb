package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counted counts writes, and fails them when told.
type counted struct {
	net.Conn
	other  net.Conn // the far end
	writes atomic.Int32
	broken atomic.Bool
}

var errBroken = errors.New("broken")

func (c *counted) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, errBroken
	}
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// arrived is how much lies at the far end and was not read there.
func (c *counted) arrived(t *testing.T) (bytes int) {
	t.Helper()
	raw, err := c.other.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { bytes, failed = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// secure is both ends of a TLS connection over gathering ones.
func secure(t *testing.T) (near, far *Conn, below *counted) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	x, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = &counted{Conn: x, other: y}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	client := tls.Client(Gather(below), &tls.Config{InsecureSkipVerify: true})
	server := tls.Server(Gather(y), &tls.Config{Certificates: []tls.Certificate{pair}})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	near, far = NewConn(client, Options{}), NewConn(server, Options{})
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far, below
}

// A long frame over TLS is few writes, a short one goes out at once, and both
// arrive.
func TestGather(t *testing.T) {
	near, far, below := secure(t)
	long := bytes.Repeat([]byte("what is to be sent"), 60_000)
	sent := make(chan error, 1)
	for n, body := range [][]byte{[]byte("short"), long, long, []byte("short")} {
		before := below.writes.Load()
		go func() { sent <- near.Send(40, body) }()
		kind, raw, err := far.Receive()
		if err = errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		var got []byte
		if err := Decode(raw, &got); err != nil || kind != 40 || !bytes.Equal(got, body) {
			t.Errorf("frame %d: %d bytes of kind %d arrived, %v", n, len(got), kind, err)
		}
		if writes := below.writes.Load() - before; int(writes) > 1+len(body)/gatherSize {
			t.Errorf("frame %d of %d bytes: %d writes", n, len(body), writes)
		}
	}
	if fresh := NewConn(tls.Client(Gather(below), &tls.Config{}), Options{}); fresh.gather != nil {
		t.Error("writes are held back before the handshake")
	}
	below.broken.Store(true)
	if err := near.Send(40, []byte("short")); !errors.Is(err, errBroken) {
		t.Errorf("a Send whose bytes did not leave: %v", err)
	}
}

// What has arrived and was not asked for yet is known, though TLS is between: of two
// frames the second one is there when the first one was received.
func TestBufferedBelowTLS(t *testing.T) {
	near, far, below := secure(t)
	sent := make(chan error, 1)
	go func() {
		for range 3 {
			if err := near.Send(40, bytes.Repeat([]byte{7}, 3000)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for below.arrived(t) < 3*3000 { // the kernel may still be at it
		time.Sleep(time.Millisecond)
	}
	for left := 2; left >= 0; left-- {
		if _, _, err := far.Receive(); err != nil {
			t.Fatal(err)
		}
		if got := far.Buffered(); (got > 0) != (left > 0) {
			t.Errorf("%d bytes are read ahead, %d frames are left", got, left)
		}
	}
}
