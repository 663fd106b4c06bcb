package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
)

// Random work, with links cut at random frames and agents restarted: what the
// replica holds is always the RAM of the instant of one scan.
func TestReplicaFollowsTheSource(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cfg := peerIn(t, t.TempDir())
			src := newSource(t, seed, 3, cfg.Disks.(testDisks))
			r := mustOpen(t, cfg)
			rng := rand.New(rand.NewPCG(seed, 99))
			acked, last := uint64(0), uint64(0)
			for range 12 {
				if !src.sender.Attached() {
					l, _ := src.attach(r)
					l.cut = 1 + rng.IntN(20)
				}
				switch rng.IntN(6) {
				case 0:
					src.restart()
				case 1: // the peer's agent is restarted
					if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					r = mustOpen(t, cfg)
				}
				if !src.sender.Attached() {
					src.attach(r)
				}
				n, _, err := src.checkpoint()
				if last = n; err == nil {
					acked = n
				} else if !errors.Is(err, ErrLink) {
					t.Fatal(err)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if n := verify(t, cfg, src.instants, 4); n < acked || n > last {
				t.Fatalf("replica holds %d, acknowledged %d, last %d", n, acked, last)
			}
		})
	}
}

// A link cut at any frame of a checkpoint leaves it complete or absent, and the
// next one, over a new link, holds what the lost one held.
func TestLinkCutAtEveryFrame(t *testing.T) {
	for _, full := range []bool{false, true} {
		for cut, reached := 0, false; !reached; cut++ {
			if !t.Run(fmt.Sprintf("full=%v/%d", full, cut), func(t *testing.T) {
				cfg := peerIn(t, t.TempDir())
				src := newSource(t, 5, 3, cfg.Disks.(testDisks))
				r := mustOpen(t, cfg)
				src.attach(r)
				first, _ := src.mustCheckpoint()
				if full {
					src.restart()
				}
				l, done := src.attach(r)
				l.cut = l.frame + cut
				second, _, err := src.checkpoint()
				if reached = err == nil; reached {
					return
				}
				if !errors.Is(err, ErrLink) || src.sender.Attached() {
					t.Fatalf("cut link: %v", err)
				}
				<-done
				got := mustStatus(t, r)
				if !got.Complete || (got.Sequence != first && got.Sequence != second) {
					t.Fatalf("status %+v", got)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				r = mustOpen(t, cfg)
				src.attach(r)
				if full && got.Sequence == second && src.sender.NeedsFull() {
					t.Error("a full image that arrived is to be sent again")
				}
				third, _ := src.mustCheckpoint()
				_ = r.Close()
				if n := verify(t, cfg, src.instants, 4); n != third {
					t.Fatalf("replica holds %d, not %d", n, third)
				}
			}) {
				return
			}
		}
	}
}

// The acknowledgement of a delta is lost: the next Ready stands in for it.
func TestLostAcknowledgement(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 6, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	l, done := src.attach(r)
	src.mustCheckpoint()
	l.lose = KindAck
	src.scribble(40)
	out := src.pause()
	if _, err := src.sender.Send(t.Context(), out); !errors.Is(err, ErrLink) {
		t.Fatal(err)
	}
	<-done
	if got := mustStatus(t, r); got.Sequence != out.Sequence {
		t.Fatalf("status %+v", got)
	}
	src.attach(r)
	if src.sender.Delta().Pages() != 0 || src.sender.NeedsFull() {
		t.Error("pages that arrived are to be sent again")
	}
	// Lost again, and the guest was paused once more before the new link: the
	// pages of that pause must not be taken for sent.
	l, _ = src.attach(r)
	l.lose = KindAck
	if _, _, err := src.checkpoint(); !errors.Is(err, ErrLink) {
		t.Fatal(err)
	}
	src.scribble(40)
	out = src.pause()
	src.attach(r)
	if _, err := src.sender.Send(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if n := verify(t, cfg, src.instants, 4); n != out.Sequence {
		t.Errorf("holds %d", n)
	}
}

func TestTakeOverBeatsFramesOnTheirWay(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	disks := cfg.Disks.(testDisks)
	waiting, goOn := make(chan struct{}, 1), make(chan struct{})
	blocked := disks
	blocked.wait = func(context.Context) error { waiting <- struct{}{}; <-goOn; return nil }
	free := sync.OnceFunc(func() { close(goOn) })
	defer free()
	src := newSource(t, 7, 3, disks)
	r := mustOpen(t, cfg)
	src.attach(r)
	first, _ := src.mustCheckpoint()
	_ = r.Close()

	cfg.Disks = blocked
	r = mustOpen(t, cfg)
	src.attach(r)
	result := make(chan error, 1)
	src.scribble(10)
	out := src.pause()
	go func() {
		_, err := src.sender.Send(context.Background(), out)
		result <- err
	}()
	<-waiting // all frames are in; the commit waits for the disks
	c, err := r.TakeOver(context.Background(), 4)
	if err != nil || c.Sequence != first {
		t.Fatalf("took over %+v: %v", c, err)
	}
	free()
	if err := <-result; !errors.Is(err, ErrTaken) && !errors.Is(err, ErrStale) {
		t.Fatalf("checkpoint after the takeover: %v", err)
	}
	if got, _ := os.ReadFile(c.RAMPath); !bytes.Equal(got, src.instants[first]) {
		t.Errorf("RAM is not that of checkpoint %d", first)
	}
	activate(t, r, c)
}

func TestTakeOverWaitsForACommit(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	disks := cfg.Disks.(testDisks)
	syncing, goOn := make(chan struct{}, 1), make(chan struct{})
	free := sync.OnceFunc(func() { close(goOn) })
	defer free()
	slow := disks
	slow.before = func(change, _ string) error {
		if change == "disksync" {
			syncing <- struct{}{}
			<-goOn
		}
		return nil
	}
	cfg.Disks = slow
	src := newSource(t, 8, 3, disks)
	r := mustOpen(t, cfg)
	src.attach(r)
	out := src.pause()
	sent := make(chan error, 1)
	go func() { _, err := src.sender.Send(context.Background(), out); sent <- err }()
	<-syncing
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.TakeOver(short, 4); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("takeover inside a commit: %v", err)
	}
	free()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if c, err := r.TakeOver(t.Context(), 4); err != nil || c.Sequence != out.Sequence {
		t.Fatalf("took over %d: %v", c.Sequence, err)
	}
}

func TestActivateEndsTheCheckpoint(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 9, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	if _, err := r.Activate(t.Context()); err == nil {
		t.Fatal("activated without a takeover")
	}
	if _, err := r.TakeOver(t.Context(), 3); !errors.Is(err, ErrStale) {
		t.Fatalf("takeover in the owner's epoch: %v", err)
	}
	for epoch := uint64(4); epoch < 6; epoch++ { // the first decision may come to nothing
		if _, err := r.TakeOver(t.Context(), epoch); err != nil {
			t.Fatal(err)
		}
	}
	path, err := r.Activate(t.Context())
	if err != nil || path != filepath.Join(cfg.RAMDir, guestName+".ram") {
		t.Fatalf("activate: %q, %v", path, err)
	}
	if err := os.WriteFile(cfg.DiskPaths[0], []byte("the guest runs"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	r = mustOpen(t, cfg)
	if _, err := r.TakeOver(t.Context(), 6); !errors.Is(err, ErrMemoryAbsent) {
		t.Fatalf("takeover of a running guest: %v", err)
	}
	if disk, _ := os.ReadFile(cfg.DiskPaths[0]); string(disk) != "the guest runs" {
		t.Error("disks of a running guest were rolled back")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestRebootLosesRAMOnly(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 10, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	n, _ := src.mustCheckpoint()
	_ = r.Close()
	cfg.BootID = "boot-2"
	r = mustOpen(t, cfg)
	if s := mustStatus(t, r); s.Memory || s.Complete || s.Sequence != n {
		t.Errorf("status %+v", s)
	}
	src.attach(r)
	if !src.sender.NeedsFull() {
		t.Error("a delta would be sent to a replica without RAM")
	}
	n, sent := src.mustCheckpoint()
	if !sent.Full {
		t.Error("no full image")
	}
	_ = r.Close()
	if got := verify(t, cfg, src.instants, 4); got != n {
		t.Errorf("holds %d", got)
	}
	cfg.BootID = "boot-3"
	r = mustOpen(t, cfg)
	if err := os.WriteFile(cfg.DiskPaths[0], []byte("latest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.TakeOver(t.Context(), 5); !errors.Is(err, ErrMemoryAbsent) {
		t.Errorf("takeover without RAM: %v", err)
	}
	if disk, _ := os.ReadFile(cfg.DiskPaths[0]); string(disk) != "latest" {
		t.Error("disks were rolled back without RAM to go with them")
	}
}

func TestVoid(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 11, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	first, _ := src.mustCheckpoint()
	if err := src.sender.Void(t.Context(), "guest was shut down"); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	r = mustOpen(t, cfg)
	if _, err := r.TakeOver(t.Context(), 4); !errors.Is(err, ErrVoid) || !strings.Contains(err.Error(), "shut down") {
		t.Fatalf("takeover of a void checkpoint: %v", err)
	}
	_ = r.Close()
	if s := (verifyStatus(t, cfg)); s.Complete || s.Void == "" || s.Floor != 4 {
		t.Errorf("status %+v", s)
	}
	// The guest is started again, by the owner of a later epoch.
	src.epoch = 5
	src.restart()
	r = mustOpen(t, cfg)
	src.attach(r)
	second, _ := src.mustCheckpoint()
	if err := r.Void(t.Context(), 5, first, "late"); err != nil {
		t.Fatal(err)
	}
	if s := mustStatus(t, r); !s.Complete || s.Sequence != second {
		t.Errorf("a late void took a newer checkpoint: %+v", s)
	}
	if err := r.Void(t.Context(), 3, 99, "older"); !errors.Is(err, ErrStale) {
		t.Errorf("void of a fenced epoch: %v", err)
	}
	_ = r.Close()
	if n := verify(t, cfg, src.instants, 6); n != second {
		t.Errorf("holds %d", n)
	}
}

func verifyStatus(t *testing.T, cfg Config) Status {
	t.Helper()
	r := mustOpen(t, cfg)
	defer r.Close()
	return mustStatus(t, r)
}

// Whatever a commit fails of, the checkpoint before stays and the next one
// succeeds with the pages of both.
func TestFailedCommits(t *testing.T) {
	for name, tc := range map[string]struct {
		change string
		err    error
		want   error
	}{
		"no memory for pages":   {"reserve", syscall.ENOSPC, ErrFailed},
		"no memory for staging": {"write", syscall.ENOSPC, ErrFailed},
		"no mark":               {"waitmark", errors.New("degraded"), ErrMark},
		"disks do not sync":     {"disksync", syscall.EIO, ErrFailed},
		"record not written":    {"sync", syscall.EIO, ErrFailed},
		"record not renamed":    {"rename", syscall.EIO, ErrFailed},
		"rename not durable":    {"syncdir", syscall.EIO, ErrFailed},
		"pages not written":     {"page", errTorn, ErrFailed},
		"undo not dropped":      {"drop", syscall.EIO, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, armed := peerIn(t, t.TempDir()), false
			before := func(change, _ string) error {
				if armed && change == tc.change {
					armed = false
					return tc.err
				}
				return nil
			}
			disks := cfg.Disks.(testDisks)
			disks.before = before
			cfg.Disks, cfg.before = disks, before
			src := newSource(t, 12, 3, disks)
			r := mustOpen(t, cfg)
			src.attach(r)
			src.mustCheckpoint()
			armed = true
			_, _, err := src.checkpoint()
			if tc.want == nil && err != nil || tc.want != nil && !errors.Is(err, tc.want) || armed {
				t.Fatalf("%v, armed %v", err, armed)
			}
			n, sent := src.mustCheckpoint() // on the same stream
			if sent.Full {
				t.Error("a full image was needed")
			}
			_ = r.Close()
			if got := verify(t, cfg, src.instants, 4); got != n {
				t.Errorf("holds %d, not %d", got, n)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	cfg.MaxRAM = func() int64 { return 2 * ramPages * memory.PageSize }
	src := newSource(t, 13, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	n, _ := src.mustCheckpoint()
	good := Begin{Epoch: 3, Sequence: n + 1, Base: n, Root: 1, RAMSize: ramPages * memory.PageSize, Spec: []byte("spec")}
	for name, tc := range map[string]struct {
		change func(*Begin)
		want   error
	}{
		"older epoch":     {func(b *Begin) { b.Epoch = 2 }, ErrStale},
		"same sequence":   {func(b *Begin) { b.Sequence, b.Base = n, n-1 }, ErrUsed},
		"base to come":    {func(b *Begin) { b.Sequence, b.Base = n+5, n+4 }, ErrNeedFull},
		"other root":      {func(b *Begin) { b.Root = 2 }, ErrNeedFull},
		"new epoch":       {func(b *Begin) { b.Epoch = 4 }, ErrNeedFull},
		"other size":      {func(b *Begin) { b.RAMSize *= 2 }, ErrNeedFull},
		"other spec":      {func(b *Begin) { b.Spec = nil }, ErrNeedFull},
		"too large":       {func(b *Begin) { b.RAMSize *= 4 }, memory.ErrSize},
		"odd size":        {func(b *Begin) { b.RAMSize++ }, memory.ErrSize},
		"full with root":  {func(b *Begin) { b.Base = 0 }, ErrProtocol},
		"delta and root":  {func(b *Begin) { b.Root = b.Sequence }, ErrProtocol},
		"base after it":   {func(b *Begin) { b.Base = b.Sequence }, ErrProtocol},
		"zero epoch":      {func(b *Begin) { b.Epoch = 0 }, ErrProtocol},
		"long run state":  {func(b *Begin) { b.RunState = strings.Repeat("x", maxText+1) }, ErrProtocol},
		"base below root": {func(b *Begin) { b.Base, b.Root = 1, 2 }, ErrNeedFull},
	} {
		b := good
		tc.change(&b)
		if _, err := r.stage(t.Context(), b); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := r.stage(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.stage(t.Context(), good); !errors.Is(err, ErrUsed) {
		t.Errorf("a sequence begun twice: %v", err)
	}
}

// What is changed on its way is refused, and costs one checkpoint only.
func TestDamageOnTheWay(t *testing.T) {
	var earlier []byte // a whole chunk, of the checkpoint before
	for name, damage := range map[string]func(kind wire.Kind, m any){
		"a bit of a chunk": func(kind wire.Kind, m any) {
			if kind == KindChunk {
				m.(*Chunk).Data[100] ^= 1
			}
		},
		"another chunk": func(kind wire.Kind, m any) {
			if kind == KindChunk {
				m.(*Chunk).Data = earlier
			}
		},
		"device state and its sum": func(kind wire.Kind, m any) {
			if kind == KindEnd {
				m.(End).BlobSum[3] ^= 1
			}
		},
	} {
		cfg := peerIn(t, t.TempDir())
		src := newSource(t, 14, 3, cfg.Disks.(testDisks))
		r := mustOpen(t, cfg)
		l, _ := src.attach(r)
		l.alter = func(kind wire.Kind, m any) {
			if kind == KindChunk {
				earlier = bytes.Clone(m.(*Chunk).Data)
			}
		}
		src.mustCheckpoint()
		l.alter = damage
		if _, _, err := src.checkpoint(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v", name, err)
		}
		l.alter = nil
		n, _ := src.mustCheckpoint()
		_ = r.Close()
		if got := verify(t, cfg, src.instants, 4); got != n {
			t.Errorf("%s: holds %d, not %d", name, got, n)
		}
	}
}
