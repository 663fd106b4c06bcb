package snapshot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/snapshot/replicator"
)

// noMonitor is a QEMU that does not answer.
type noMonitor struct{}

var errNoMonitor = errors.New("no answer")

func (noMonitor) Execute(context.Context, string, any, any) error { return errNoMonitor }

// keeper is one agent after the other before one QEMU.
type keeper struct {
	*Protector
	stop func()
}

// newKeeper starts an agent, a later one if it is to load the map.
func newKeeper(t *testing.T, m *Mirror, file string, load bool) keeper {
	t.Helper()
	nothing := func(context.Context) error { return nil }
	never := func(context.Context) error { return errors.New("nobody hears it") }
	owner, err := replicator.New(replicator.Options{
		Guest: "g", Epoch: 1, Disks: m.replicatorDisks(), Degrade: never, InSync: nothing, Outdated: !load,
		Map: replicator.MapOptions{Path: file, Instance: "qemu", Load: load},
	}, slog.New(slog.DiscardHandler))
	check(t, err)
	listeners, err := owner.Listen()
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- owner.Serve(ctx, listeners) }()
	stop := func() { cancel(); over <- <-over }
	t.Cleanup(stop)
	return keeper{&Protector{config: ProtectorConfig{Mirror: m, Synced: nothing}, replicator: owner, unmirrored: make(chan error, 1)}, stop}
}

// unmirrored is a QEMU whose one disk has no mirror yet, and the file of its
// replicator's map.
func unmirrored(t *testing.T) (m *Mirror, monitor qemuMonitor, file string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatalf("`make deps` installs QEMU: %v", err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.raw")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, sparseDisk))
	monitor = runQEMU(t, dir, image)
	m = &Mirror{
		Monitor: monitor, Target: filepath.Join(dir, "repl"), Export: filepath.Join(dir, "exp"),
		Disks: []MirrorDisk{{Name: "disk", Size: sparseDisk, Top: "top0", Base: "d0"}},
	}
	return m, monitor, filepath.Join(dir, "map")
}

// TestKeepMirror lets agents come and go: the mirrors are kept as long as every
// write has gone through them.
func TestKeepMirror(t *testing.T) {
	m, monitor, file := unmirrored(t)
	agent := newKeeper(t, m, file, false)
	check(t, m.Start(t.Context()))
	if err := agent.KeepMirror(t.Context()); err == nil {
		t.Error("kept, by the agent that made them")
	}
	monitor.io(t, "write -P 7 0 1M")
	agent.stop()

	agent = newKeeper(t, m, file, true)
	check(t, agent.KeepMirror(t.Context())) // nothing is under way
	monitor.io(t, "write -P 8 0 1M")
	if loaded, missing := agent.replicator.Loaded(); !loaded || len(missing) != 0 {
		t.Errorf("after a write: loaded %t, missing %v", loaded, missing)
	}
	check(t, agent.KeepMirror(t.Context()))
	agent.stop()

	monitor.io(t, "aio_write -q -P 9 0 1M")
	eventually(t, "a write waits", func() bool {
		waiting, err := m.kept(t.Context(), []string{"disk"})
		check(t, err)
		return waiting == "disk"
	})
	if waiting, err := m.kept(t.Context(), nil); waiting != "" || err != nil {
		t.Errorf("with a mirror that has connected: %q %v", waiting, err)
	}
	agent = newKeeper(t, m, file, true) // QEMU tries again within a second
	check(t, agent.KeepMirror(t.Context()))
	eventually(t, "the write is through", func() bool {
		waiting, err := m.kept(t.Context(), []string{"disk"})
		check(t, err)
		return waiting == ""
	})
	check(t, m.Check(t.Context()))

	// A mirror that has failed stays so, whatever the guest's state does.
	check(t, m.run(t.Context(), "yank", object{"instances": []object{{"type": "block-node", "node-name": targetNode(0)}}}))
	monitor.io(t, "write -P 3 0 1M")
	for _, then := range []string{"cont", "stop", "cont"} {
		if err := m.Check(t.Context()); !errors.Is(err, ErrMirror) {
			t.Errorf("before %s: %v", then, err)
		}
		check(t, m.run(t.Context(), then, nil))
	}
	jobs, err := m.jobs(t.Context())
	check(t, err)
	if !slices.ContainsFunc(jobs, func(j blockJob) bool { return j.IOStatus == "ok" }) {
		t.Error("this QEMU does not forget a job's error: what is tested here?")
	}
	if err := agent.KeepMirror(t.Context()); !errors.Is(err, ErrMirror) || !strings.Contains(err.Error(), "disk") {
		t.Errorf("kept: %v", err)
	}
	if err := agent.disksSynced(t.Context()); !errors.Is(err, ErrMirror) || len(agent.unmirrored) != 1 {
		t.Errorf("a replica that lacks a write counts: %v", err)
	}
	mute := *m
	mute.Monitor = noMonitor{}
	agent.config.Mirror = &mute
	if err := agent.StartMirror(t.Context()); !errors.Is(err, errNoMonitor) {
		t.Errorf("started: %v", err)
	}
	if loaded, _ := agent.replicator.Loaded(); loaded {
		t.Error("mirrors are taken down before it is known that writes may go past them")
	}
	agent.config.Mirror = m
	check(t, agent.StartMirror(t.Context()))
	if loaded, _ := agent.replicator.Loaded(); loaded {
		t.Error("with mirrors made anew, what is known of the old ones still counts")
	}
	check(t, agent.disksSynced(t.Context()))
}

func eventually(t *testing.T, what string, test func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !test(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}
