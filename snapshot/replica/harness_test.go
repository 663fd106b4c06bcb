package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
	"vmctl/snapshot/shmtest"

	"golang.org/x/sys/unix"
)

// testDisks is one disk as files, so that it outlives a crash: "disk" is the
// last write, "mark-N" what undoing up to mark N would give.
type testDisks struct {
	dir    string
	before func(change, path string) error
	wait   func(ctx context.Context) error
}

func (d testDisks) ask(what string) error {
	if d.before == nil {
		return nil
	}
	return d.before(what, d.dir)
}

func (d testDisks) mark(n uint64) string { return filepath.Join(d.dir, fmt.Sprintf("mark-%06d", n)) }
func (d testDisks) disk() string         { return filepath.Join(d.dir, "disk") }

func (d testDisks) WaitMark(ctx context.Context, n uint64) error {
	if d.wait != nil {
		if err := d.wait(ctx); err != nil {
			return err
		}
	}
	if _, err := os.Stat(d.mark(n)); err != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.ask("waitmark")
}

func (d testDisks) Sync() error { return d.ask("disksync") }

func (d testDisks) Rollback(n uint64, ready func() error) error {
	if err := errors.Join(d.ask("logsync"), ready()); err != nil {
		return err
	}
	data, err := os.ReadFile(d.mark(n)) // missing: it was dropped too early
	if err != nil {
		return err
	}
	return errors.Join(d.ask("rollback"), os.WriteFile(d.disk(), data, 0o600), d.ask("rolledback"))
}

func (d testDisks) Drop(before uint64) error {
	if err := d.ask("drop"); err != nil {
		return err
	}
	marks, err := filepath.Glob(filepath.Join(d.dir, "mark-*"))
	for _, m := range marks {
		if m < d.mark(before) {
			err = errors.Join(err, os.Remove(m))
		}
	}
	return err
}

func (d testDisks) Fold(keep, before uint64) error {
	marks, err := filepath.Glob(filepath.Join(d.dir, "mark-*"))
	for i, m := range marks {
		if i < len(marks)-1 && m > d.mark(keep) && m < d.mark(before) {
			err = errors.Join(err, os.Remove(m))
		}
	}
	return err
}

func (d testDisks) Close() error { return d.ask("diskclose") }

// at makes the mark of a checkpoint and then lets the guest write on.
func (d testDisks) at(t testing.TB, n uint64) {
	t.Helper()
	err := os.WriteFile(d.mark(n), fmt.Appendf(nil, "disk of %d", n), 0o600)
	if err = errors.Join(err, os.WriteFile(d.disk(), fmt.Appendf(nil, "after %d", n), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestMain puts the tests' directories on tmpfs, where a replica's RAM belongs
// and an fsync costs nothing: the crash tests make thousands.
func TestMain(m *testing.M) {
	os.Exit(shmtest.Main(m))
}

const guestName = "8f14e45f-ceea-467f-9538-6d1a1f0f1a11"

// peerIn gives the configuration of a replica under root.
func peerIn(t testing.TB, root string) Config {
	t.Helper()
	disks := testDisks{dir: filepath.Join(root, "disks")}
	if err := os.MkdirAll(disks.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return Config{Dir: filepath.Join(root, "state"), RAMDir: filepath.Join(root, "ram"), Name: guestName,
		Disks: disks, DiskPaths: []string{disks.disk()}, MarkTimeout: 5 * time.Second, BootID: "boot-1"}
}

func mustOpen(t testing.TB, cfg Config) *Replica {
	t.Helper()
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func mustStatus(t testing.TB, r *Replica) Status {
	t.Helper()
	s, err := r.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// source is the owner: RAM that changes, its shadow, a sender.
type source struct {
	t        testing.TB
	rng      *rand.Rand
	ram      []byte
	live     *memory.Image
	shadow   *memory.Shadow
	sender   *Sender
	numbers  *Counter
	instants map[uint64][]byte // RAM at each checkpoint
	disks    testDisks
	epoch    uint64
	churn    int // pages written before and after each pause
}

const ramPages = 64*3 + 7

func newSource(t testing.TB, seed, epoch uint64, disks testDisks) *source {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "ram")
	if err := file.Truncate(ramPages * memory.PageSize); err != nil {
		t.Fatal(err)
	}
	ram, err := unix.Mmap(fd, 0, ramPages*memory.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{t: t, rng: rand.New(rand.NewPCG(seed, 0)), ram: ram, instants: map[uint64][]byte{}, disks: disks, epoch: epoch, churn: 30}
	if s.live, err = memory.Open(fmt.Sprintf("/proc/self/fd/%d", fd), int64(len(ram))); err != nil {
		t.Fatal(err)
	}
	if s.numbers, err = OpenCounter(filepath.Join(disks.dir, "counter")); err != nil {
		t.Fatal(err)
	}
	s.restart()
	t.Cleanup(func() {
		_ = s.sender.Close()
		if err := errors.Join(s.live.Close(), s.shadow.Close(), unix.Munmap(ram), file.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// restart is a new agent: an empty shadow, a new sender.
func (s *source) restart() {
	s.t.Helper()
	if s.shadow != nil {
		if err := errors.Join(s.sender.Close(), s.shadow.Close()); err != nil {
			s.t.Fatal(err)
		}
	}
	var err error
	if s.shadow, err = memory.NewShadow(int64(len(s.ram))); err != nil {
		s.t.Fatal(err)
	}
	if s.sender, err = NewSender(SenderConfig{Epoch: s.epoch, Spec: []byte("spec"), Shadow: s.shadow, Numbers: s.numbers,
		Compress: CompressAlways, AckTimeout: 10 * time.Second}); err != nil {
		s.t.Fatal(err)
	}
}

// scribble is the guest at work; some pages become zero.
func (s *source) scribble(n int) {
	for range n {
		page := s.ram[s.rng.IntN(ramPages)*memory.PageSize:][:memory.PageSize]
		switch s.rng.IntN(3) {
		case 0:
			clear(page)
		case 1:
			page[s.rng.IntN(len(page))]++
		default:
			for i := 0; i < len(page); i += 8 {
				page[i] = byte(s.rng.Uint32())
			}
		}
	}
}

// pause takes a checkpoint's number and its pages, and lets the guest run on.
func (s *source) pause() Outgoing {
	s.t.Helper()
	n, err := s.sender.Number()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := memory.Scan(context.Background(), s.live, s.shadow, s.sender.Delta(), memory.Options{}); err != nil {
		s.t.Fatal(err)
	}
	s.instants[n] = slices.Clone(s.ram)
	s.disks.at(s.t, n)
	s.scribble(s.churn)
	return Outgoing{Sequence: n, Blob: blobOf(n), RunState: "running", Time: int64(n) * 1000}
}

// blobOf is the device state of a checkpoint; one in three needs two frames.
func blobOf(n uint64) []byte {
	times := 500
	if n%3 == 2 {
		times = 20000
	}
	return bytes.Repeat(fmt.Appendf(nil, "device state %d;", n), times)
}

func (s *source) checkpoint() (uint64, Sent, error) {
	s.t.Helper()
	s.scribble(s.churn)
	out := s.pause()
	sent, err := s.sender.Send(context.Background(), out)
	return out.Sequence, sent, err
}

func (s *source) mustCheckpoint() (uint64, Sent) {
	s.t.Helper()
	n, sent, err := s.checkpoint()
	if err != nil {
		s.t.Fatal(err)
	}
	return n, sent
}

// link is a stream that the test can break: at the frame with index cut,
// counted in both directions from the sender's point of view.
type link struct {
	Stream
	mu    sync.Mutex
	frame int
	cut   int       // -1: never
	lose  wire.Kind // cut instead of receiving this
	kinds []wire.Kind
	alter func(wire.Kind, any) // sees, and may change, what is sent
}

var errCut = errors.New("link was cut")

func (l *link) step(kind wire.Kind) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut >= 0 && l.frame >= l.cut {
		_ = l.Stream.Close()
		return errCut
	}
	l.frame++
	l.kinds = append(l.kinds, kind)
	return nil
}

func (l *link) Send(kind wire.Kind, body any) error {
	if err := l.step(kind); err != nil {
		return err
	}
	if l.alter != nil {
		l.alter(kind, body)
	}
	return l.Stream.Send(kind, body)
}

func (l *link) Receive() (wire.Kind, []byte, error) {
	kind, body, err := l.Stream.Receive()
	if err != nil {
		return 0, nil, err
	}
	if kind == l.lose {
		_ = l.Stream.Close()
		return 0, nil, errCut
	}
	return kind, body, l.step(kind)
}

// dial connects a stream to a replica and gives the receiver's result.
func dial(r *Replica) (*link, <-chan error) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- r.Receive(context.Background(), wire.NewConn(far, wire.Options{})) }()
	return &link{Stream: wire.NewConn(near, wire.Options{}), cut: -1}, done
}

func (s *source) attach(r *Replica) (*link, <-chan error) {
	s.t.Helper()
	l, done := dial(r)
	if _, err := s.sender.Attach(context.Background(), l); err != nil {
		s.t.Fatal(err)
	}
	return l, done
}

// verify takes over and compares everything with the instant of the checkpoint
// that the replica says it holds, which it returns (0: none).
func verify(t testing.TB, cfg Config, instants map[uint64][]byte, epoch uint64) uint64 {
	t.Helper()
	cfg.before = nil
	r, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	status := mustStatus(t, r)
	files, err := os.ReadDir(cfg.RAMDir)
	if err != nil {
		t.Fatal(err)
	}
	undos := 0
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".undo") {
			undos++
		}
		if undos > 1 || strings.HasSuffix(f.Name(), ".delta") || (strings.HasSuffix(f.Name(), ".ram") && filepath.Join(cfg.RAMDir, f.Name()) != status.RAMPath) {
			t.Errorf("%s was left over", f.Name())
		}
	}
	c, err := r.TakeOver(context.Background(), epoch)
	if errors.Is(err, ErrNoCheckpoint) && !status.Complete {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	want, ok := instants[c.Sequence]
	if !ok || !status.Complete || status.Sequence != c.Sequence || c.Epoch != epoch {
		t.Fatalf("checkpoint %d of epoch %d was never made (status %+v)", c.Sequence, c.Epoch, status)
	}
	got, err := os.ReadFile(c.RAMPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("RAM differs from the instant of checkpoint %d", c.Sequence)
	}
	if !bytes.Equal(c.Blob, blobOf(c.Sequence)) || c.RunState != "running" || c.Time != int64(c.Sequence)*1000 {
		t.Fatalf("device state or facts are not those of checkpoint %d", c.Sequence)
	}
	activate(t, r, c)
	return c.Sequence
}

// activate checks that the RAM stays and the disks become the checkpoint's.
func activate(t testing.TB, r *Replica, c Checkpoint) {
	t.Helper()
	before, err := os.Stat(c.RAMPath)
	if err != nil {
		t.Fatal(err)
	}
	path, err := r.Activate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Fatalf("RAM of the running guest: %v", err)
	}
	if disk, err := os.ReadFile(c.DiskPaths[0]); err != nil || string(disk) != fmt.Sprintf("disk of %d", c.Sequence) {
		t.Fatalf("disk is %q, not that of checkpoint %d (%v)", disk, c.Sequence, err)
	}
}
