package replicator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"vmctl/node/wire"
	"vmctl/snapshot/durable"
	"vmctl/snapshot/undo"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// live is the guest's disk in memory, and its own Source.
type live struct {
	mu    sync.Mutex
	bytes []byte
	slow  func() // called in the middle of a read
	fail  error
}

func (l *live) ReadAt(p []byte, off int64) (int, error) {
	half := len(p) / 2
	l.mu.Lock()
	copy(p[:half], l.bytes[off:])
	fail := l.fail
	l.mu.Unlock()
	if l.slow != nil {
		l.slow()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	copy(p[half:], l.bytes[off+int64(half):])
	return len(p), fail
}

func (l *live) Close() error { return nil }

func (l *live) set(p []byte, off int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	copy(l.bytes[off:], p)
}

// rig is both sides of one guest, without QEMU.
type rig struct {
	t        testing.TB
	live     []*live
	owner    *Replicator
	replicas map[string]*undo.Disk
	receiver *Receiver
	identity *Identity
	dir      string
	opts     Options
	cancel   context.CancelFunc
	served   chan error
	parting  sync.WaitGroup // of the peer's sides
	last     *connection    // attached last

	mu       sync.Mutex
	degrade  func(context.Context) error
	inSync   func(context.Context) error
	degraded int
	synced   int
}

var names = []string{"d0", "d1"}

// newRig makes two disks of the size, live ones with content.
func newRig(t testing.TB, size int, change func(*Options)) *rig {
	t.Helper()
	g := &rig{t: t, replicas: map[string]*undo.Disk{}, served: make(chan error, 1)}
	opts := Options{Guest: "g", Epoch: 3}
	dir := t.TempDir()
	for i, name := range names {
		l := &live{bytes: bytes.Repeat([]byte{byte(17 * (i + 1)), 0, 1}, size)[:size]}
		clear(l.bytes[size/2 : size*3/4])
		g.live = append(g.live, l)
		opts.Disks = append(opts.Disks, Disk{Name: name, Size: int64(size), Source: func(context.Context) (Source, error) { return l, nil }})
		replica, err := undo.Open(filepath.Join(dir, name), int64(size))
		must(t, err)
		t.Cleanup(func() { replica.Close() })
		g.replicas[name] = replica
	}
	opts.Degrade = func(ctx context.Context) error {
		g.mu.Lock()
		g.degraded++
		call := g.degrade
		g.mu.Unlock()
		if call != nil {
			return call(ctx)
		}
		return nil
	}
	opts.InSync = func(ctx context.Context) error {
		g.mu.Lock()
		g.synced++
		call := g.inSync
		g.mu.Unlock()
		if call != nil {
			return call(ctx)
		}
		return nil
	}
	if change != nil {
		change(&opts)
	}
	g.dir, g.opts = dir, opts
	g.openIdentity("boot")
	g.serve()
	return g
}

// openIdentity is a start of the peer's agent in a boot of its host.
func (g *rig) openIdentity(boot string) {
	g.t.Helper()
	if g.receiver != nil {
		g.receiver.Stop()
		g.identity.close()
	}
	var images []string
	for _, name := range names {
		images = append(images, filepath.Join(g.dir, name))
	}
	var err error
	g.identity, err = OpenIdentity(durable.Files{}, filepath.Join(g.dir, "identity"), boot, images)
	must(g.t, err)
	g.receiver = NewReceiver(ReceiverOptions{Guest: "g", Epoch: 3, Disks: g.replicas, Identity: g.identity}, quiet())
}

// serve is a start of the owner's agent.
func (g *rig) serve() {
	g.t.Helper()
	owner, err := New(g.opts, quiet())
	must(g.t, err)
	g.mu.Lock()
	g.owner = owner
	g.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	go func() { g.served <- owner.Serve(ctx, Listeners{}) }()
}

// stop ends the owner's side.
func (g *rig) stop() {
	g.t.Helper()
	g.cancel()
	must(g.t, <-g.served)
	g.parting.Wait()
}

func (g *rig) counts() (degraded, synced int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.degraded, g.synced
}

// muted is a peer's stream that can fall silent.
type muted struct {
	*wire.Conn
	silent atomic.Bool
}

func (m *muted) Send(kind wire.Kind, body any) error {
	if m.silent.Load() {
		return nil
	}
	return m.Conn.Send(kind, body)
}

// connection is an attached link.
type connection struct {
	owner        *wire.Conn
	peer         *muted
	lost, parted chan error // what Attach and Serve returned
	over         chan struct{}
}

func pipe() (a, b *wire.Conn) {
	x, y := net.Pipe()
	return wire.NewConn(x, wire.Options{}), wire.NewConn(y, wire.Options{})
}

// attach connects both sides.
func (g *rig) attach() *connection {
	c := g.attachTo(nil)
	receiver := g.receiver
	g.parting.Go(func() { c.parted <- receiver.Serve(context.Background(), c.peer) })
	return c
}

// attachTo connects the owner to a peer played by the test, if there is one.
func (g *rig) attachTo(play func(peer *wire.Conn)) *connection {
	c := &connection{lost: make(chan error, 1), parted: make(chan error, 1), over: make(chan struct{})}
	g.last = c
	owner, peer := pipe()
	if _, err := g.identity.Wake(); err != nil {
		g.t.Error(err)
	}
	c.owner, c.peer = owner, &muted{Conn: peer}
	link, says := g.owner, Peer{Replica: g.identity.Value(), Holds: true}
	go func() {
		defer close(c.over)
		c.lost <- link.Attach(context.Background(), c.owner, says)
	}()
	if play != nil {
		go func() {
			play(peer)
			c.parted <- nil
		}()
	}
	return c
}

func (c *connection) cut() {
	c.peer.Close()
	<-c.lost
	<-c.parted
}

// deaf reads everything and answers nothing.
func deaf(peer *wire.Conn) {
	for {
		if _, _, err := peer.Receive(); err != nil {
			return
		}
	}
}

// write does what QEMU does for a guest's write: the disk first, then the mirror.
func (g *rig) write(disk int, p []byte, off int64) error {
	g.live[disk].set(p, off)
	done := make(chan error, 1)
	(&device{g.owner, disk}).StartWrite(p, off, func(err error) { done <- err })
	return <-done
}

// same says whether replica and live disk are equal.
func (g *rig) same() error {
	for i, name := range names {
		got := make([]byte, len(g.live[i].bytes))
		if _, err := g.replicas[name].ReadAt(got, 0); err != nil {
			return err
		}
		if !bytes.Equal(got, g.live[i].bytes) {
			at := 0
			for got[at] == g.live[i].bytes[at] {
				at++
			}
			return errors.New(name + " differs at " + itoa(at))
		}
	}
	return nil
}

func itoa(n int) string { return slog.IntValue(n).String() }

var _ Stream = (*wire.Conn)(nil)
var _ io.ReaderAt = (*live)(nil)

// recovers ends a test with a new link, over which the replica becomes the disks.
func (g *rig) recovers(t *testing.T) {
	t.Helper()
	g.attach()
	settled(g, InSync)
	must(t, g.same())
	g.stop()
}
