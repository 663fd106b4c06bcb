package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestPartialResync cuts the way to the peer while the guest writes: when it is
// back only what was written is sent, also if the owner's agent was killed
// meanwhile. After a power cut of the owner everything is compared.
func TestPartialResync(t *testing.T) {
	b := sharedBench(t, resumed)
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.writesAlone(0)
	b.must(b.Heal(t.Context()))
	b.resynced("after a cut", api.ResyncPartial)

	b.must(b.Cut(t.Context(), b.A, b.B))
	dirty := b.writesAlone(0)
	b.killAgent(b.A)
	b.must(b.A.StartAgent(t.Context()))
	b.writesAlone(dirty)
	b.must(b.Heal(t.Context()))
	if v := b.resynced("after a kill", api.ResyncPartial); v.PID != pid {
		t.Errorf("QEMU is process %d, it was %d", v.PID, pid)
	}

	b.killAgent(b.A) // in sync: nothing has to be compared
	b.must(b.A.StartAgent(t.Context()))
	b.resynced("after a kill in sync", api.ResyncPartial)

	b.must(b.Cut(t.Context(), b.A, b.B))
	b.writesAlone(0)
	b.powerCut(b.A)
	b.must(b.Heal(t.Context()))
	b.must(b.A.PowerOn(t.Context()))
	b.resynced("after a power cut", api.ResyncFull)
	b.bounded(b.B)
}

// bounded looks at what a replica takes on its host after all that: one image of
// memory, one delta on its way and what the last one replaced, a few undo segments, no
// more than the disks once for each of three.
func (b *bench) bounded(h *lab.Host) {
	b.t.Helper()
	ram, err := filepath.Glob(filepath.Join(h.RAMDir(), b.vm.UUID+"-*"))
	b.must(err)
	segments, err := filepath.Glob(filepath.Join(h.StateDir(), "guests", b.vm.UUID, "disks", "*.undo", "*.seg"))
	b.must(err)
	var used int64
	for _, path := range segments {
		if info, err := os.Stat(path); err == nil { // else it was dropped since
			used += info.Size()
		}
	}
	b.t.Logf("on %s: %d files of memory, %d undo segments of %d bytes", h.Name, len(ram), len(segments), used)
	of := map[string]int{}
	for _, path := range ram {
		of[filepath.Ext(path)]++
	}
	if of[".ram"] != 1 || of[".delta"] > 1 || of[".undo"] > 1 || len(ram) > 3 || len(segments) == 0 || len(segments) > 4 || used > 3*64<<20 {
		b.t.Errorf("on %s there is %v, and %d undo segments of %d bytes", h.Name, ram, len(segments), used)
	}
}

// TestAgentAwayTooLong keeps the owner's agent away until QEMU has given up on it:
// the guest's writes may have gone past the mirrors, and all is compared, although
// the map of what was written is there.
func TestAgentAwayTooLong(t *testing.T) {
	b := sharedBench(t, resumed)
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.writesAlone(0)
	b.killAgent(b.A)
	time.Sleep(33 * time.Second) // QEMU waits for 30
	b.must(b.A.StartAgent(t.Context()))
	b.must(b.Heal(t.Context()))
	if v := b.resynced("after half a minute", api.ResyncFull); v.PID != pid {
		t.Errorf("QEMU is process %d, it was %d", v.PID, pid)
	}
}

// writesAlone waits until the guest has written more to its disks than its replica
// has, and for a while goes on.
func (b *bench) writesAlone(more int64) (dirty int64) {
	b.t.Helper()
	v, err := b.A.WaitState(b.t.Context(), 30*time.Second, func(v api.VM) error {
		switch {
		case v.Replica == nil || v.Replica.State == "synced" || v.Replica.Resync == nil:
			return errors.New("the replica still counts")
		case v.Replica.Resync.DirtyBytes <= more:
			return fmt.Errorf("%d bytes are dirty", v.Replica.Resync.DirtyBytes)
		}
		return nil
	})
	b.must(err)
	before, _, _ := b.recorder.Last()
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		// Each step of the guest's work waits for its disk.
		if now, _, _ := b.recorder.Last(); now.Counter < before.Counter+2*lab.Rate {
			return fmt.Errorf("the guest stands still: counter %d, then %d", before.Counter, now.Counter)
		}
		return nil
	}))
	return v.Replica.Resync.DirtyBytes
}

// resynced waits for a replica that counts, and looks how it came about.
func (b *bench) resynced(what, kind string) api.VM {
	b.t.Helper()
	v := b.synced(b.A)
	r := v.Replica.Resync
	b.t.Logf("%s: %+v", what, r)
	if r.Kind != kind || kind == api.ResyncPartial && (r.TotalBytes > 16<<20 || r.SentBytes > r.TotalBytes) || r.TotalBytes < r.SentBytes {
		b.t.Errorf("%s: %+v, want %s", what, r, kind)
	}
	out, err := b.A.CLI(b.t.Context(), "vm", "verify", lab.GuestName)
	b.must(err)
	if !strings.Contains(out, "equal") {
		b.t.Errorf("%s: %s", what, out)
	}
	return v
}
