package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/undo"
	"vmctl/vm/qmp"
)

const sparseDisk = 64 << 20

// TestSparse writes, zeroes and discards through the guest's device: the
// replica's content is the owner's, and it takes no more space.
func TestSparse(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatalf("`make deps` installs QEMU: %v", err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.raw")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, sparseDisk))
	monitor := runQEMU(t, dir, image)
	log := slog.New(slog.DiscardHandler)
	m := &Mirror{
		Monitor: monitor, Target: filepath.Join(dir, "repl"), Export: filepath.Join(dir, "exp"),
		Disks: []MirrorDisk{{Name: "disk", Size: sparseDisk, Top: "top0", Base: "d0"}},
	}
	copied := filepath.Join(dir, "replica.raw")
	disk, err := undo.Open(copied, sparseDisk)
	check(t, err)
	defer disk.Close()
	nothing := func(context.Context) error { return nil }
	owner, err := replicator.New(replicator.Options{
		Guest: "g", Epoch: 1, Disks: m.replicatorDisks(), Degrade: nothing, InSync: nothing,
		AckDeadline: 20 * time.Second, // whatever else this machine does
	}, log)
	check(t, err)
	listeners, err := owner.Listen()
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 3)
	go func() { over <- owner.Serve(ctx, listeners) }()
	defer func() { cancel(); <-over }()
	check(t, m.Start(ctx))
	x, y := net.Pipe()
	peer := replicator.NewReceiver(replicator.ReceiverOptions{Guest: "g", Epoch: 1, Disks: map[string]*undo.Disk{"disk": disk}}, log)
	go func() { over <- owner.Attach(ctx, wire.NewConn(x, wire.Options{}), replicator.Peer{}) }()
	go func() { over <- peer.Serve(ctx, wire.NewConn(y, wire.Options{})) }()
	defer func() { cancel(); <-over; <-over }()

	synced := func() { // and what was discarded, which is answered first, is compared
		t.Helper()
		is := func() bool { s := owner.State(); return s.Phase == replicator.InSync && s.Dirty == 0 }
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not in sync: %+v", owner.State())
			}
		}
	}
	synced()
	for _, step := range []struct {
		do             string
		owner, replica int64 // MiB that they may take at most
	}{
		{"write -P 7 0 32M", 32, 32},
		{"write -P 0 16M 8M", 24, 24},
		{"write -z -u 8M 4M", 24, 20}, // QEMU's mirror drops the word that the owner may unmap it
		{"discard 0 4M", 24, 20},      // and all of this
		{"write -P 9 8M 1M", 24, 21},
		{"write -P 0 0 64M", 0, 0},
	} {
		monitor.io(t, step.do)
		synced()
		want, err := os.ReadFile(image)
		check(t, err)
		got, err := os.ReadFile(copied)
		check(t, err)
		if !bytes.Equal(want, got) {
			t.Errorf("after %q the replica differs", step.do)
		}
		// The file system's own blocks may count too.
		const slack = 256 << 10
		if n := allocated(t, image); n > step.owner<<20+slack {
			t.Errorf("after %q the owner's image takes %d KiB, want %d MiB", step.do, n>>10, step.owner)
		}
		if n := allocated(t, copied); n > step.replica<<20+slack {
			t.Errorf("after %q the replica takes %d KiB, want %d MiB", step.do, n>>10, step.replica)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// qemuMonitor is the monitor of a QEMU that never runs its guest.
type qemuMonitor struct{ *qmp.Client }

// io does what the guest's disk would be asked to.
func (m qemuMonitor) io(t *testing.T, command string) {
	t.Helper()
	var out json.RawMessage
	line := fmt.Sprintf(`qemu-io -d /machine/peripheral/vd0/virtio-backend "%s"`, command)
	check(t, m.Execute(t.Context(), "human-monitor-command", map[string]any{"command-line": line}, &out))
	if bytes.Contains(out, []byte("failed")) || bytes.Contains(out, []byte("rror")) {
		t.Fatalf("%s: %s", command, out)
	}
}

// runQEMU runs one with the disk's nodes as a guest's are.
func runQEMU(t *testing.T, dir, image string) qemuMonitor {
	t.Helper()
	socket := filepath.Join(dir, "qmp")
	common := ",cache.direct=off,cache.no-flush=off,discard=unmap"
	qemu := exec.Command("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-accel", "tcg", "-machine", "q35", "-m", "32M", "-S", "-qmp", "unix:"+socket+",server=on,wait=off",
		"-blockdev", "driver=file,node-name=f0,filename="+image+common,
		"-blockdev", "driver=raw,node-name=d0,file=f0,detect-zeroes=unmap"+common,
		"-blockdev", "driver=raw,node-name=top0,file=d0"+common,
		"-device", "virtio-blk-pci,drive=top0,id=vd0")
	qemu.Stderr = os.Stderr
	check(t, qemu.Start())
	t.Cleanup(func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	})
	deadline := time.Now().Add(20 * time.Second)
	for {
		client, err := qmp.Dial(t.Context(), socket, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Cleanup(func() { _ = client.Close() })
			return qemuMonitor{client}
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
