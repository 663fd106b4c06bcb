package snapshot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/shmtest"

	"golang.org/x/sys/unix"
)

// fakeGuest is a guest without QEMU: memory that a goroutine writes to unless
// it is stopped.
type fakeGuest struct {
	world   sync.Mutex // held while stopped, and by the writer at work
	ram     []byte
	path    string
	bench   bool // do not keep the instant
	ended   bool // the guard ends the next pause
	running atomic.Bool
	instant []byte // memory of the last pause
	write   func(ram []byte)
	devices func(context.Context) ([]byte, error) // nil: at once
	paused  bool                                  // by its user
	orders  []string                              // what the guest and its guard were told
}

func newFakeGuest(t testing.TB, size int, write func([]byte)) *fakeGuest {
	t.Helper()
	g := &fakeGuest{path: filepath.Join(shmtest.TempDir(t), "ram"), write: write}
	file, err := memory.Create(g.path, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	fd, err := unix.Open(g.path, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.ram, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(g.ram) })
	g.running.Store(true)
	return g
}

// work writes until ctx ends.
func (g *fakeGuest) work(ctx context.Context) {
	for ctx.Err() == nil {
		g.world.Lock()
		g.write(g.ram)
		g.world.Unlock()
		time.Sleep(time.Millisecond)
	}
}

func (g *fakeGuest) Execute(_ context.Context, command string, _, reply any) error {
	switch command {
	case "query-status":
		reply.(*struct{ Status string }).Status = "running"
		if g.paused {
			reply.(*struct{ Status string }).Status = "paused"
		}
	case "stop":
		g.orders = append(g.orders, command)
		g.world.Lock()
		g.running.Store(false)
		if !g.bench {
			g.instant = bytes.Clone(g.ram)
		}
	case "cont":
		g.orders = append(g.orders, command)
		g.running.Store(true)
		g.world.Unlock()
	}
	return nil
}

func (g *fakeGuest) SaveDevices(ctx context.Context) ([]byte, error) {
	if g.devices != nil {
		return g.devices(ctx)
	}
	return []byte("devices"), nil
}

func (g *fakeGuest) BeginPause(context.Context, uint64, time.Duration) error {
	g.orders = append(g.orders, "begin")
	return nil
}
func (g *fakeGuest) EndPause(context.Context, uint64) (bool, error) {
	g.orders = append(g.orders, "end")
	ended := g.ended
	g.ended = false
	return ended, nil
}
func (g *fakeGuest) Exclusive(ctx context.Context, f func(context.Context) error) error {
	return f(ctx)
}

// protect joins the guest to a replica; slow, if not nil, is between.
func (g *fakeGuest) protect(t testing.TB, slow func(net.Conn) net.Conn) (*Protector, Dial) {
	t.Helper()
	dir := filepath.Dir(g.path)
	r, err := replica.Open(t.Context(), replica.Config{Dir: filepath.Join(dir, "s"), RAMDir: filepath.Join(dir, "r"), Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewProtector(ProtectorConfig{
		UUID: "g", Epoch: 1, RAM: g.path, RAMSize: int64(len(g.ram)), Counter: filepath.Join(dir, "counter"), PID: os.Getpid(),
		Mirror: &Mirror{}, Machine: g, Synced: func(context.Context) error { return nil },
		Noted: func(kind, text string) { t.Errorf("%s: %s", kind, text) }, Log: slog.New(slog.DiscardHandler),
		patience: time.Hour, // how fast this machine is under the race detector is not in question here
	})
	if err != nil {
		t.Fatal(err)
	}
	var receiving sync.WaitGroup
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		receiving.Wait()
	})
	return p, func(context.Context) (Stream, replicator.Peer, error) {
		near, far := net.Pipe()
		if slow != nil {
			near = slow(near)
		}
		receiving.Go(func() { _ = r.Receive(context.Background(), wire.NewConn(far, wire.Options{})) })
		return wire.NewConn(near, wire.Options{}), replicator.Peer{}, nil
	}
}

// checkpoint takes one without waiting for the next one's time.
func (g *fakeGuest) checkpoint(t testing.TB, p *Protector) Report {
	t.Helper()
	report, err := p.checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.last = report
	return report
}

// touch changes n pages of its own each time, so that they are seldom written
// twice between two pauses.
func touch(n int) func([]byte) {
	next := 0
	return func(ram []byte) {
		for range n {
			next = (next + 7*memory.PageSize) % len(ram)
			for i := range memory.PageSize / 8 {
				ram[next+i*8]++
			}
		}
	}
}

// The pause of a guest that writes much copies little, and what the replica
// gets is the memory of the pause.
func TestCheckpointsOfABusyGuest(t *testing.T) {
	const size = 32 << 20
	g := newFakeGuest(t, size, touch(1))
	p, dial := g.protect(t, nil)
	stream, _, _ := dial(t.Context())
	if _, err := p.sender.Attach(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	shadow := make([]byte, size)
	const interval = 4000 // pages written from one checkpoint to the next
	for n := range 12 {
		for range interval {
			g.write(g.ram)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var working sync.WaitGroup
		working.Go(func() { g.work(ctx) })
		report := g.checkpoint(t, p)
		cancel()
		working.Wait()
		if _, err := p.shadow.ReadAt(shadow, 0); err != nil || !bytes.Equal(shadow, g.instant) {
			t.Fatalf("checkpoint %d is not the memory of the pause (%v)", n, err)
		}
		if n > 1 && report.Copied > interval/2 {
			t.Errorf("checkpoint %d: %d pages copied in the pause, %d were written before it", n, report.Copied, interval)
		}
	}
}

// blindDirty knows of no writing: each page that it should have named is missed.
type blindDirty struct{}

func (blindDirty) Allowed() error                { return nil }
func (blindDirty) Find(_, _ *memory.Delta) error { return nil }
func (blindDirty) Clear() error                  { return nil }
func (blindDirty) Close() error                  { return nil }

// When the guard has continued the guest too early, pages were written after
// they had been copied, and their bits cleared: everything is compared again.
func TestEndedPauseIsComparedAgain(t *testing.T) {
	const size = 64 << 20
	g := newFakeGuest(t, size, nil)
	for at := 0; at < size; at += memory.PageSize {
		g.ram[at] = 1
	}
	p, dial := g.protect(t, nil)
	stream, _, _ := dial(t.Context())
	if _, err := p.sender.Attach(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	p.finder = memory.NewFinder(p.image, p.shadow, p.sender.Delta(), blindDirty{}, func(err error) { t.Error(err) })
	g.checkpoint(t, p)
	g.ended = true
	if _, err := p.checkpoint(t.Context()); !errors.Is(err, ErrPauseEnded) {
		t.Fatal(err)
	}
	g.ram[size-1]++
	g.checkpoint(t, p)
	shadow := make([]byte, size)
	if _, err := p.shadow.ReadAt(shadow, 0); err != nil || !bytes.Equal(shadow, g.instant) {
		t.Errorf("the checkpoint is not the memory of the pause (%v)", err)
	}
}

// slowConn passes a number of bytes a second.
type slowConn struct {
	net.Conn
	rate float64
}

func (c slowConn) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(float64(len(p)) / c.rate * float64(time.Second)))
	return c.Conn.Write(p)
}

// A link that is too slow for what the guest writes lengthens the interval, not
// the pause, and nothing piles up.
func TestSlowLinkLengthensTheInterval(t *testing.T) {
	const size, rate, most = 8 << 20, 8 << 20, 4
	g := newFakeGuest(t, size, touch(20))
	for range size / memory.PageSize / 20 {
		g.write(g.ram)
	}
	p, dial := g.protect(t, func(c net.Conn) net.Conn { return slowConn{c, rate} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var working sync.WaitGroup
	working.Go(func() { g.work(ctx) })
	var reports []Report
	working.Go(func() {
		for ; len(reports) < most && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			if last := p.Last(); last.Sequence != 0 && (len(reports) == 0 || last.Sequence != reports[len(reports)-1].Sequence) {
				reports = append(reports, last)
			}
		}
		cancel()
	})
	err := p.Protect(ctx, nil, dial, func() time.Duration { return 20 * time.Millisecond })
	cancel()
	working.Wait()
	if !errors.Is(err, context.Canceled) || len(reports) < most || !g.running.Load() {
		t.Fatalf("%v, %d checkpoints, running %v", err, len(reports), g.running.Load())
	}
	var stopped, all time.Duration
	for i, r := range reports[1:] {
		apart := r.Time.Sub(reports[i].Time)
		if least := time.Duration(float64(reports[i].Bytes) / rate * float64(time.Second)); apart < least*9/10 {
			t.Errorf("%d bytes went out in %v", reports[i].Bytes, apart)
		}
		stopped, all = stopped+r.Pause, all+apart
	}
	// Sending while the guest is stopped would be nearly all of the time.
	if stopped > all/2 {
		t.Errorf("stopped for %v of %v", stopped, all)
	}
}

// lateGuard is one whose answer to a beginning came too late, if late.
type lateGuard struct {
	*fakeGuest
	late, open bool
}

func (g *lateGuard) BeginPause(context.Context, uint64, time.Duration) error {
	switch {
	case g.open:
		return errors.New("a pause is still under way")
	case g.late:
		g.open = true
		return context.DeadlineExceeded
	}
	g.open = true
	return nil
}

func (g *lateGuard) EndPause(context.Context, uint64) (bool, error) {
	g.open = false
	return false, nil
}

// A guard that was stopped for a while begins the pause all the same, later: it must
// not keep every one after it from being begun.
func TestPauseThatBeganUnheardIsClosed(t *testing.T) {
	g := newFakeGuest(t, 1<<20, nil)
	p, dial := g.protect(t, nil)
	stream, _, _ := dial(t.Context())
	if _, err := p.sender.Attach(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	guard := &lateGuard{fakeGuest: g, late: true}
	p.config.Machine = guard
	if _, err := p.checkpoint(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	guard.late = false
	if _, err := p.checkpoint(t.Context()); err != nil {
		t.Errorf("after the guard was late once: %v", err)
	}
}
