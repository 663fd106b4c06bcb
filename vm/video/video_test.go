package video

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"vmctl/vm"
	"vmctl/vm/qmp"
)

// patience is how long a QEMU may take for anything, on a machine that is busy.
const patience = time.Minute

// guest is a real QEMU with a screen, that runs its firmware.
type guest struct {
	spec    vm.Spec
	layout  vm.Layout
	pid     int
	monitor *qmp.Client
}

func launch(t *testing.T, o vm.Options) *guest {
	t.Helper()
	host, err := vm.FindHost(vm.AccelTCG)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/dev/shm", "video") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &guest{spec: vm.Spec{Name: "video", Memory: 64 * vm.MiB, Accel: vm.AccelTCG, Display: vm.DisplayVNC}.Defaults(host)}
	g.layout = vm.Layout{State: dir, Runtime: dir, RAMFile: filepath.Join(dir, "ram")}
	if err := errors.Join(os.WriteFile(g.layout.RAM(), nil, 0o600), os.Truncate(g.layout.RAM(), int64(g.spec.MemoryFile()))); err != nil {
		t.Fatal(err)
	}
	line := vm.Cmdline(g.spec, g.layout, host, o)
	qemu := exec.Command(line[0], line[1:]...)
	said := &bytes.Buffer{}
	qemu.Stderr = said
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = qemu.Process.Kill(), qemu.Wait()
		if t.Failed() {
			t.Logf("QEMU said: %s", said)
		}
	})
	g.pid = qemu.Process.Pid
	await(t, func() (err error) {
		g.monitor, err = qmp.Dial(t.Context(), g.layout.AgentQMP(), slog.New(slog.DiscardHandler))
		return err
	})
	t.Cleanup(func() { _ = g.monitor.Close() })
	return g
}

// await tries until it succeeds.
func await(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func (g *guest) open(ctx context.Context) (*Mirror, error) {
	return Open(ctx, g.monitor, g.pid, vm.VideoDevice, g.layout.RAM(), int64(g.spec.Memory), int64(g.spec.VideoMemory()))
}

// copied is the screen's memory as the memory file has it.
func (g *guest) copied(t *testing.T, m *Mirror) []byte {
	t.Helper()
	if err := m.Refresh(); err != nil {
		t.Fatal(err)
	}
	content, err := Read(g.layout.RAM(), int64(g.spec.Memory), int64(g.spec.VideoMemory()))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// pixels is what the screen shows.
func (g *guest) pixels(t *testing.T) [32]byte {
	t.Helper()
	path := filepath.Join(g.layout.State, "screen.ppm")
	if err := g.monitor.Execute(t.Context(), "screendump", map[string]any{"filename": path}, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) < 720*400*3 {
		t.Fatalf("a screen of %d bytes, %v", len(data), err)
	}
	return sha256.Sum256(data)
}

// draw writes to the screen's memory behind the guest's back: rows of pages, some
// random, some zero, up to the last one.
func (g *guest) draw(t *testing.T, m *Mirror) {
	t.Helper()
	process, err := os.OpenFile(m.process.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	random := rand.NewChaCha8([32]byte{7})
	last := len(m.have)/page - 1
	data := make([]byte, page)
	for _, at := range []int{0, 1, 3, 8, 9, 255, 256, 300, 1024, last} {
		_, _ = random.Read(data)
		if _, err := process.WriteAt(data, int64(m.address)+int64(at*page)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestScreenSurvives saves a guest and loads it elsewhere: its screen's memory is
// the same to the last byte, and so are the pixels.
func TestScreenSurvives(t *testing.T) {
	ctx := t.Context()
	from := launch(t, vm.Options{Paused: true})
	if _, err := from.open(ctx); !errors.Is(err, ErrHidden) {
		t.Errorf("before the firmware has run: %v", err)
	}
	if err := qmp.Cont(ctx, from.monitor); err != nil {
		t.Fatal(err)
	}
	var m *Mirror
	await(t, func() (err error) { m, err = from.open(ctx); return err })
	defer m.Close()
	// The firmware's words are on the screen.
	await(t, func() error {
		if bytes.Count(from.copied(t, m), []byte{0}) == len(m.have) {
			return errors.New("nothing is on the screen")
		}
		return nil
	})
	if err := qmp.Stop(ctx, from.monitor); err != nil {
		t.Fatal(err)
	}
	from.draw(t, m)
	want, pixels := from.copied(t, m), from.pixels(t)
	state, err := qmp.NewStateFile(ctx, from.monitor)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := state.Save(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Insert(blob, vm.VideoBlock, want)
	if err != nil {
		t.Fatal(err)
	}

	to := launch(t, vm.Options{Incoming: true})
	ram, err := os.ReadFile(from.layout.RAM())
	if err != nil {
		t.Fatal(err)
	}
	if err := rewrite(to.layout.RAM(), ram[:from.spec.Memory]); err != nil {
		t.Fatal(err)
	}
	if err := qmp.LoadDeviceState(ctx, to.monitor, bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	there, err := to.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if got := to.copied(t, there); !bytes.Equal(got, want) {
		t.Error("the screen's memory is another one")
	}
	if got := to.pixels(t); got != pixels {
		t.Error("the screen shows something else")
	}
	to.reboot(t, there)
}

// reboot resets the guest: no state holds the VGA's firmware, and yet its words
// are on the screen again.
func (g *guest) reboot(t *testing.T, m *Mirror) {
	t.Helper()
	process, err := os.OpenFile(m.process.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = process.WriteAt(make([]byte, len(m.have)), int64(m.address))
	if err := errors.Join(err, process.Close(), qmp.SystemReset(t.Context(), g.monitor), qmp.Cont(t.Context(), g.monitor)); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if bytes.Count(g.copied(t, m), []byte{0}) == len(m.have) {
			return errors.New("nothing is on the screen after a reset")
		}
		return nil
	})
}

// rewrite changes a file that QEMU has open.
func rewrite(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// TestRefreshKeepsUp follows what is drawn, and knows what an earlier one copied.
func TestRefreshKeepsUp(t *testing.T) {
	g := launch(t, vm.Options{})
	var m *Mirror
	await(t, func() (err error) { m, err = g.open(t.Context()); return err })
	if err := qmp.Stop(t.Context(), g.monitor); err != nil {
		t.Fatal(err)
	}
	g.copied(t, m)
	g.draw(t, m)
	first := g.copied(t, m)
	// What a former agent has copied, and is no more so, goes.
	stale := bytes.Repeat([]byte{1}, page)
	if _, err := m.file.WriteAt(stale, m.offset+7*page); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := g.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := g.copied(t, again); !bytes.Equal(got, first) {
		t.Error("the copy is not the screen's memory")
	}
}

func TestInsertRefuses(t *testing.T) {
	good := append([]byte("QEVM\x00\x00\x00\x03"), 0)
	content := make([]byte, page)
	if _, err := Insert(good, "block", content); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		state, content []byte
		block          string
	}{
		"no state":        {[]byte("QEVM"), content, "block"},
		"another version": {[]byte("QEVM\x00\x00\x00\x04"), content, "block"},
		"half a page":     {good, content[:page/2], "block"},
		"nothing":         {good, nil, "block"},
		"no name":         {good, content, ""},
	} {
		if _, err := Insert(test.state, test.block, test.content); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
