package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// trial is one run of the test guest.
type trial struct {
	qemu, firmware string
	accel, cpu     string
	cpus           int
	bound          time.Duration
	env            []string // nil: our own
}

// outcome is how a trial went.
type outcome struct {
	progress
	late    bool          // the bound passed
	gaveUp  bool          // KVM said that it cannot go on
	status  string        // how QEMU ended, if by itself
	message string        // last of what QEMU said on standard error
	chunked time.Duration // from the first chunk of instructions to the last
	cpuTime time.Duration // that QEMU used
}

func (t trial) line() []string {
	return []string{
		"-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-machine", "q35", "-accel", t.accel, "-cpu", t.cpu, "-m", "64M", "-smp", strconv.Itoa(t.cpus),
		"-drive", "if=pflash,format=raw,readonly=on,file=" + strings.ReplaceAll(t.firmware, ",", ",,"),
		"-kernel", "/proc/self/fd/3", // the first of ExtraFiles
		"-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out",
		"-no-reboot", // a triple fault ends it
	}
}

// run starts QEMU and returns when it is gone. The error is that of ctx, or that
// QEMU could not be started.
func (t trial) run(ctx context.Context, image []byte) (outcome, error) {
	file, err := guestFile(image)
	if err != nil {
		return outcome{}, err
	}
	defer file.Close()
	bounded, cancel := context.WithTimeout(ctx, t.bound)
	defer cancel()
	cmd := exec.CommandContext(bounded, t.qemu, t.line()...)
	cmd.Dir, cmd.Env = "/", t.env
	cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // a child of QEMU may hold the pipes
	output := &watcher{end: cancel}
	cmd.Stdout, cmd.Stderr = output.guest(), output.qemu()

	// The death signal is sent when the thread that started QEMU ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return outcome{}, fmt.Errorf("start QEMU to try %s: %w", t.accel, err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	o := output.outcome()
	o.cpuTime = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	o.late = errors.Is(bounded.Err(), context.DeadlineExceeded)
	if bounded.Err() == nil || (err == nil && !o.ended) {
		o.status = cmd.ProcessState.String()
	}
	return o, nil
}

// watcher reads what the guest and QEMU write, and ends the trial when there is
// nothing to wait for.
type watcher struct {
	end func()

	mu          sync.Mutex
	o           outcome
	errors      []byte
	first, last time.Time // chunk
}

const keepErrors = 2048

// kvmGaveUp is what QEMU prints before it stops a guest for good.
var kvmGaveUp = []byte("KVM internal error")

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func (w *watcher) guest() io.Writer {
	return writer(func(b []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range b {
			if w.o.wrong || w.o.ended {
				break
			}
			if w.o.take(c) {
				w.end()
			}
			if c == stageRun {
				w.last = time.Now()
				if w.first.IsZero() {
					w.first = w.last
				}
			}
		}
		return len(b), nil
	})
}

func (w *watcher) qemu() io.Writer {
	return writer(func(b []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.errors = append(w.errors, b[:min(len(b), keepErrors-len(w.errors))]...)
		if bytes.Contains(w.errors, kvmGaveUp) {
			w.o.gaveUp = true
			w.end()
		}
		return len(b), nil
	})
}

// outcome is called when both writers are done.
func (w *watcher) outcome() outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.chunked = w.last.Sub(w.first)
	w.o.message = firstWords(string(w.errors))
	return w.o
}

// firstWords is the first lines of QEMU's complaint, as one line.
func firstWords(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[:min(len(lines), 2)], "; ")
}
