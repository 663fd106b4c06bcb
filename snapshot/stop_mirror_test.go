package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestStopMirror takes the mirrors of a guest down whose write waits for a peer that
// is gone: the write goes on at once, and then QEMU makes the disk larger, which it
// refuses under a mirror.
func TestStopMirror(t *testing.T) {
	m, monitor, file := unmirrored(t)
	agent := newKeeper(t, m, file, false)
	check(t, m.Start(t.Context()))
	agent.stop()
	agent = newKeeper(t, m, file, true) // its replica counts, and can be outdated by nobody
	monitor.io(t, "aio_write -q -P 9 0 1M")
	eventually(t, "a write waits at the agent", func() bool { return agent.replicator.State().Waiting > 0 })
	larger := object{"node-name": "top0", "size": 2 * sparseDisk}
	if err := m.run(t.Context(), "block_resize", larger); err == nil {
		t.Error("QEMU makes a mirrored disk larger: what is this for?")
	}
	began := time.Now()
	bound, cancel := context.WithTimeout(t.Context(), cancelBound)
	defer cancel()
	check(t, agent.StopMirror(bound))
	if took := time.Since(began); took > cancelBound/2 {
		t.Errorf("it took %v", took)
	}
	check(t, m.run(t.Context(), "block_resize", larger))
	if info, err := os.Stat(filepath.Join(filepath.Dir(file), "disk.raw")); err != nil || info.Size() != 2*sparseDisk {
		t.Errorf("the image has %d bytes, %v", info.Size(), err)
	}
	m.Disks[0].Size *= 2
	agent.stop()
	agent = newKeeper(t, m, file, false)
	check(t, agent.StartMirror(t.Context()))
	monitor.io(t, "write -P 7 64k 64k")
	check(t, m.Check(t.Context()))
}
