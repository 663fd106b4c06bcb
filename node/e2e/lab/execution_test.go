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

// spinning starts a QEMU whose firmware is a jump to itself, with the monitor
// where the recorder looks for it.
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
		"-qmp", "unix:" + socket + ".test,server=on,wait=off"}, more...)...)
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
	return &watched{name: name, process: func(context.Context) int { return qemu.Process.Pid }, monitor: func(int) string { return socket }}
}

// tell has a QEMU do one thing, and waits for a state.
func (h *watched) tell(t *testing.T, command string, args any, state string) {
	t.Helper()
	var client *qmp.Client
	err := Eventually(t.Context(), 20*time.Second, func() (err error) {
		client, err = qmp.Dial(t.Context(), h.monitor(0)+".test", nil)
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
	r := &Recorder{hosts: []*watched{runs, waits}, waiters: map[int]*waiter{}, cancel: cancel}
	r.tasks.Go(func() { r.sample(ctx) })
	both := []look{{watched: runs, pid: runs.process(ctx)}, {watched: waits, pid: waits.process(ctx)}}
	if err := Eventually(ctx, 20*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waiters[both[1].pid] == nil {
			return errors.New("the recorder has not seen who waits")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.judge(ctx, time.Now(), both) // its monitor may not be there yet
	time.Sleep(time.Second)
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
	time.Sleep(time.Second)
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
			b := &watched{name: "b", monitor: next.monitor, process: func(ctx context.Context) int {
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
			r := &Recorder{hosts: []*watched{runs, b}, waiters: map[int]*waiter{}, cancel: cancel}
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

// A QEMU that waited and was killed has not executed, whatever time its end took.
func TestRecorderHearsToTheEnd(t *testing.T) {
	dir := t.TempDir()
	runs, waits := spinning(t, dir, "a"), spinning(t, dir, "b", "-S", "-incoming", "defer")
	r := Recorder{waiters: map[int]*waiter{}}
	ctx, cancel := context.WithCancel(t.Context())
	both := []look{{watched: runs, pid: runs.process(ctx)}, {watched: waits, pid: waits.process(ctx)}}
	r.follow(ctx, both[1])
	<-r.waiters[both[1].pid].heard
	if err := syscall.Kill(both[1].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.judge(ctx, time.Now(), both)
	cancel()
	r.tasks.Wait()
	if len(r.overlaps) != 0 || len(r.started) != 1 {
		t.Errorf("%q, %q", r.overlaps, r.started)
	}
}

// Who cannot be asked counts as executing.
func TestRecorderDoubts(t *testing.T) {
	dir := t.TempDir()
	runs, waits := spinning(t, dir, "a"), spinning(t, dir, "b", "-S", "-incoming", "defer")
	gone := *waits
	gone.process = func(context.Context) int { return 1<<22 + 1 } // no such process
	for name, test := range map[string]struct {
		second *watched
		wrong  int
	}{"waits": {waits, 0}, "runs": {runs, 1}, "gone": {&gone, 1}} {
		gone.monitor = func(int) string { return filepath.Join(dir, "none") }
		ctx, cancel := context.WithCancel(t.Context())
		r := Recorder{waiters: map[int]*waiter{}}
		r.follow(ctx, look{watched: test.second, pid: test.second.process(ctx)})
		r.judge(t.Context(), time.Now(), []look{{watched: runs, pid: runs.process(t.Context())}, {watched: test.second, pid: test.second.process(t.Context())}})
		if len(r.overlaps) != test.wrong || len(r.started) != 1-test.wrong {
			t.Errorf("%s: %q, %q", name, r.overlaps, r.started)
		}
		cancel()
		r.tasks.Wait()
	}
}
