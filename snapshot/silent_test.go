package snapshot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"vmctl/snapshot/memory"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/shmtest"
)

// awayGuest is a QEMU whose agent goes away; its guest is paused by its user.
type awayGuest struct {
	qemuMonitor
	t      *testing.T
	dir    string
	image  string
	mirror *Mirror
	peer   *Standby
}

func (g *awayGuest) Execute(ctx context.Context, command string, args, reply any) error {
	if command == "query-status" { // of a guest that was never started
		reply.(*struct{ Status string }).Status = "paused"
		return nil
	}
	return g.qemuMonitor.Execute(ctx, command, args, reply)
}
func (g *awayGuest) SaveDevices(context.Context) ([]byte, error)             { return []byte("devices"), nil }
func (g *awayGuest) BeginPause(context.Context, uint64, time.Duration) error { return nil }
func (g *awayGuest) EndPause(context.Context, uint64) (bool, error)          { return false, nil }
func (g *awayGuest) Exclusive(ctx context.Context, f func(context.Context) error) error {
	return f(ctx)
}

const awayDisk = 8 << 20

func newAwayGuest(t *testing.T) *awayGuest {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatalf("`make deps` installs QEMU: %v", err)
	}
	dir := shmtest.TempDir(t)
	g := &awayGuest{t: t, dir: dir, image: filepath.Join(dir, "disk.raw")}
	must(t, os.WriteFile(g.image, nil, 0o600))
	must(t, os.Truncate(g.image, awayDisk))
	ram, err := memory.Create(filepath.Join(dir, "ram"), tellerRAM)
	must(t, errors.Join(err, ram.Close()))
	g.qemuMonitor = runQEMU(t, dir, g.image)
	g.mirror = &Mirror{
		Monitor: g, Target: filepath.Join(dir, "repl"), Export: filepath.Join(dir, "exp"), reconnect: 1,
		Disks: []MirrorDisk{{Name: "disk", Size: awayDisk, Top: "top0", Base: "d0"}},
	}
	g.peer, err = OpenStandby(t.Context(), StandbyConfig{UUID: "g", Epoch: 1, Dir: filepath.Join(dir, "replica"), RAMDir: filepath.Join(dir, "replica-ram"),
		Disks: []DiskImage{{Name: "disk", Path: filepath.Join(dir, "replica.raw"), Size: awayDisk}}, MaxRAM: func() int64 { return tellerRAM }, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, g.peer.Close()) })
	return g
}

// agent is a new one; the replica is outdated when it comes.
func (g *awayGuest) agent() *Protector {
	g.t.Helper()
	nothing := func(context.Context) error { return nil }
	p, err := NewProtector(ProtectorConfig{
		UUID: "g", Epoch: 1, RAM: filepath.Join(g.dir, "ram"), RAMSize: tellerRAM, PID: os.Getpid(), Counter: filepath.Join(g.dir, "counter"),
		Mirror: g.mirror, Machine: g, Outdated: true, Degrade: nothing, Synced: nothing, Noted: func(string, string) {},
		Log: slog.New(slog.DiscardHandler), ackDeadline: 2 * time.Second,
	})
	must(g.t, err)
	return p
}

// protect runs links until until says so, or one ends by itself. One that only
// this machine was too slow for is followed by another.
func (g *awayGuest) protect(p *Protector, until func() bool) error {
	g.t.Helper()
	for {
		if err := g.protectOnce(p, until); !errors.Is(err, replicator.ErrSilent) {
			return err
		}
	}
}

func (g *awayGuest) protectOnce(p *Protector, until func() bool) error {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	defer cancel()
	over := make(chan error, 1)
	dial := func(serve func(context.Context, Stream) error) Dial {
		return func(context.Context) (Stream, replicator.Peer, error) {
			said, err := g.peer.Says()
			return join(serve), said, err
		}
	}
	go func() {
		over <- p.Protect(ctx, dial(g.peer.ServeDisks), dial(g.peer.ServeCheckpoints), func() time.Duration { return 50 * time.Millisecond })
	}()
	for deadline := time.Now().Add(30 * time.Second); !until(); {
		select {
		case err := <-over:
			return err
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("nothing happened: disks %+v, checkpoint %+v", p.Disks(), p.Last())
		}
	}
	cancel()
	<-over
	return nil
}

func (g *awayGuest) committed() uint64 {
	g.t.Helper()
	status, err := g.peer.Status(g.t.Context())
	must(g.t, err)
	return status.Sequence
}

// TestAgentAwayLongerThanTheMirrorWaits is the silent corruption: QEMU gives the
// mirror up, the guest writes on, and what it writes is nowhere but on its own
// disk, although a new agent's link is in sync with what it has seen. No checkpoint
// may be committed over such a mirror; made anew, it is compared in full.
func TestAgentAwayLongerThanTheMirrorWaits(t *testing.T) {
	g := newAwayGuest(t)
	first := g.agent()
	must(t, first.StartMirror(t.Context()))
	must(t, g.protect(first, func() bool { return first.Last().Sequence != 0 }))
	g.io(t, "write -P 1 0 1M")
	must(t, first.Close())
	before := g.committed()

	g.io(t, "write -P 2 64k 64k") // waits for the agent, and then goes past the mirror
	if err := g.mirror.Check(t.Context()); !errors.Is(err, ErrMirror) {
		t.Errorf("the mirror gave up and is said to be good: %v", err)
	}
	g.io(t, "write -P 3 2M 64k")

	second := g.agent()
	defer func() { must(t, second.Close()) }()
	// The compare makes disks and replica equal; then the guest writes on.
	wrote := false
	err := g.protect(second, func() bool {
		if second.Disks().Phase == replicator.InSync && !wrote {
			g.io(t, "write -P 4 4M 64k")
			wrote = true
		}
		return g.committed() != before
	})
	if !errors.Is(err, ErrMirror) || g.committed() != before {
		t.Errorf("over a failed mirror: checkpoint %d was committed (%d before), Protect says %v", g.committed(), before, err)
	}

	must(t, second.StartMirror(t.Context()))
	g.io(t, "write -P 5 5M 64k")
	began := before
	must(t, g.protect(second, func() bool {
		if began == before && g.committed() != before {
			g.io(t, "write -P 6 6M 64k")
			began = g.committed() + 1
		}
		return began != before && g.committed() > began
	}))
	from, err := g.peer.TakeOver(t.Context(), 2)
	must(t, err)
	_, err = g.peer.Activate(t.Context()) // rolls the disk back
	must(t, err)
	want, err := os.ReadFile(g.image)
	must(t, err)
	got, err := os.ReadFile(from.DiskPaths[0])
	must(t, err)
	if !bytes.Equal(want, got) {
		t.Error("taken over after all that, the disk is not the guest's")
	}
}
