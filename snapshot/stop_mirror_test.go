package snapshot

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestStopMirror takes the mirrors of a guest down whose write waits for a peer that
// is gone: the write goes on at once, and then QEMU makes the disk larger, which it
// refuses under a mirror.
func TestStopMirror(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatalf("`make deps` installs QEMU: %v", err)
	}
	dir := t.TempDir()
	image, file := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "map")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, sparseDisk))
	monitor := runQEMU(t, dir, image)
	m := &Mirror{
		Monitor: monitor, Target: filepath.Join(dir, "repl"), Export: filepath.Join(dir, "exp"),
		Disks: []MirrorDisk{{Name: "disk", Size: sparseDisk, Top: "top0", Base: "d0"}},
	}
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
	if info, err := os.Stat(image); err != nil || info.Size() != 2*sparseDisk {
		t.Errorf("the image has %d bytes, %v", info.Size(), err)
	}
	m.Disks[0].Size *= 2
	agent.stop()
	agent = newKeeper(t, m, file, false)
	check(t, agent.StartMirror(t.Context()))
	monitor.io(t, "write -P 7 64k 64k")
	check(t, m.Check(t.Context()))
}
