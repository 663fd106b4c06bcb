package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/qmp"
)

// spinning starts a QEMU whose firmware is a jump to itself, with the record of when
// it ran where the recorder looks for it.
func spinning(t *testing.T, dir, name string, more ...string) *watched {
	t.Helper()
	firmware := make([]byte, 64<<10)
	copy(firmware[len(firmware)-16:], []byte{0xeb, 0xfe}) // at the reset vector
	image, socket := filepath.Join(dir, "firmware"), filepath.Join(dir, name)
	if err := os.WriteFile(image, firmware, 0o600); err != nil {
		t.Fatal(err)
	}
	qemu := exec.Command("qemu-system-x86_64", append([]string{"-name", name + ",debug-threads=on", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-machine", "pc-q35-7.2", "-accel", "tcg", "-smp", "2", "-m", "32M", "-bios", image, "-qmp", "unix:" + socket + ",server=on,wait=off",
		"-msg", "timestamp=on", "-trace", "vm_state_notify", "-D", socket + ".runs"}, more...)...)
	qemu.Stderr = os.Stderr
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = qemu.Process.Kill(); _ = qemu.Wait() })
	// Started is not yet in its own words: the kernel lets Start return before it
	// has put them there.
	err := Eventually(t.Context(), 20*time.Second, func() error {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", qemu.Process.Pid))
		if err == nil && !bytes.Contains(words, []byte(socket)) {
			err = fmt.Errorf("its words are %q", words)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return &watched{name: name, process: func(context.Context) int { return qemu.Process.Pid }, runs: func(int) string { return socket + ".runs" }}
}

// tell has a QEMU do one thing, and waits for a state.
func (w *watched) tell(t *testing.T, command string, args any, state string) {
	t.Helper()
	var client *qmp.Client
	err := Eventually(t.Context(), 20*time.Second, func() (err error) {
		client, err = qmp.Dial(t.Context(), strings.TrimSuffix(w.runs(0), ".runs"), nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Execute(t.Context(), command, args, nil); err != nil {
		t.Fatal(err)
	}
	err = Eventually(t.Context(), 20*time.Second, func() error {
		status, err := qmp.QueryStatus(t.Context(), client)
		if err == nil && status.Status != state {
			err = fmt.Errorf("it is %s, not %s", status.Status, state)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A QEMU that waits beside the one that runs is no second execution, from its
// first moment on. One that runs is, also if it was launched to wait: the recorder
// sees it by itself.
func TestRecorderSeesExecution(t *testing.T) {
	dir := t.TempDir()
	runs := spinning(t, dir, "a")
	saved := spinning(t, dir, "saved")
	state := filepath.Join(dir, "state")
	saved.tell(t, "stop", nil, "paused")
	saved.tell(t, "migrate", map[string]string{"uri": "exec:cat >" + state}, "postmigrate")

	waits := spinning(t, dir, "b", "-S", "-incoming", "defer")
	ctx, cancel := context.WithCancel(t.Context())
	r := &Recorder{hosts: []*watched{runs, waits}, cancel: cancel}
	if err := Eventually(ctx, 20*time.Second, func() error {
		defer waits.close()
		if waits.sees(waits.process(ctx)); waits.vcpus == nil {
			return errors.New("it has no vCPUs yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// From the first moment on in which it could use time there is its record.
	r.judge(time.Now(), []look{{watched: runs, pid: runs.process(ctx)}, {watched: waits, pid: waits.process(ctx)}})
	r.tasks.Go(func() { r.sample(ctx) })
	time.Sleep(time.Second) // that it is looked at at all shows in the end
	none := func(when string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.overlaps != nil || !strings.Contains(r.started[0], "it waits") {
			t.Errorf("%s: %q, %q", when, r.overlaps, r.started)
		}
	}
	none("while it waited")
	waits.tell(t, "migrate-incoming", map[string]string{"uri": "exec:cat " + state}, "paused")
	time.Sleep(time.Second)
	none("after it had loaded the state")
	waits.tell(t, "cont", nil, "running")
	_ = Eventually(ctx, 20*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.overlaps) == 0 {
			return errors.New("it is not seen yet")
		}
		return nil
	})
	if wrong := r.Stop(); len(wrong) == 0 || !strings.Contains(wrong[0], "ran on both hosts") {
		t.Errorf("a second execution was not seen: %q, %q", wrong, r.started)
	} else {
		t.Log(r.started, wrong[0])
	}
}

// The recorder looks for another QEMU on a host when the one that it knows has ended,
// and now and then although it has not.
func TestRecorderFindsTheNextQEMU(t *testing.T) {
	for name, ends := range map[string]bool{"the first has ended": true, "the first only stands still": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			runs, first, next := spinning(t, dir, "a"), spinning(t, dir, "b", "-S"), spinning(t, dir, "next")
			ctx, cancel := context.WithCancel(t.Context())
			looked := make(chan struct{}, 1)
			var other atomic.Bool
			b := &watched{name: "b", runs: next.runs, process: func(ctx context.Context) int {
				found := first
				if other.Load() {
					found = next
				}
				select {
				case looked <- struct{}{}:
				default:
				}
				return found.process(ctx)
			}}
			r := &Recorder{hosts: []*watched{runs, b}, cancel: cancel}
			r.tasks.Go(func() { r.sample(ctx) })
			<-looked // and has found the first
			other.Store(true)
			if ends {
				if err := syscall.Kill(first.process(ctx), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			err := Eventually(ctx, 20*time.Second, func() error {
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.overlaps) == 0 {
					return errors.New("the second execution is not seen")
				}
				return nil
			})
			if wrong := r.Stop(); err != nil {
				t.Error(err)
			} else {
				t.Log(wrong[0])
			}
		})
	}
}

// A QEMU that waited and was killed has not executed, whatever time its end took, and
// whenever it came: also as the first thing that happens to it.
func TestRecorderKnowsWhoWasKilled(t *testing.T) {
	dir := t.TempDir()
	runs, waits := spinning(t, dir, "a"), spinning(t, dir, "b", "-S", "-incoming", "defer")
	both := []look{{watched: runs, pid: runs.process(t.Context())}, {watched: waits, pid: waits.process(t.Context())}}
	var r Recorder
	if err := Eventually(t.Context(), 20*time.Second, func() error { _, err := os.Stat(waits.runs(0)); return err }); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(both[1].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.judge(time.Now(), both)
	if len(r.overlaps) != 0 || len(r.started) != 1 {
		t.Errorf("%q, %q", r.overlaps, r.started)
	}
}

// Whose record is missing or not to be read counts as executing.
func TestRecorderDoubts(t *testing.T) {
	dir, now := t.TempDir(), time.Unix(1795705304, 500000000)
	const waited = "7@1795705304.400000:vm_state_notify running 0 reason 3 (paused)\n"
	for name, test := range map[string]struct {
		record string // empty: none
		ran    bool
	}{
		"no record":            {"", true},
		"waits":                {waited, false},
		"nothing yet":          {"\n", false},
		"runs":                 {waited + "7@1795705304.466555:vm_state_notify running 1 reason 9 (running)\n", true},
		"paused since":         {"7@1795705304.1:vm_state_notify running 1 reason 9 (running)\n" + waited, true},
		"runs later":           {waited + "7@1795705304.500001:vm_state_notify running 1 reason 9 (running)\n", false},
		"cut at its beginning": {"vm_state_notify running 1 reason 9 (running)\n", true},
		"no such times":        {"7@soon:vm_state_notify running 1 reason 9 (running)\n", true},
	} {
		path := filepath.Join(dir, name)
		if test.record != "" {
			if err := os.WriteFile(path, []byte(test.record), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l := look{watched: &watched{runs: func(int) string { return path }}}
		if why, ran := l.executed(now); ran != test.ran {
			t.Errorf("%s: %t, %s", name, ran, why)
		}
	}
}
