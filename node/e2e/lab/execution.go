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
	"sync"
	"time"

	"vmctl/vm/qmp"
)

// The vCPU threads of a QEMU that only waits for a guest's state use processor
// time too, to start (1.6 ms), to load the state, and when it is killed; the vm
// package has the test that it executes nothing meanwhile. Two hosts on which they
// do are therefore no proof of two executions. A QEMU that was launched to wait is
// listened to from its start on, when it is in the state inmigrate, which it never
// is again: before its vCPUs run it says so by the event RESUME. Whoever was not
// heard from the start counts as executing, unless its threads were stopped before
// and only used the time to end.

// askBound is how long a QEMU may take to answer: it may have just begun to start.
const askBound = 10 * time.Second

// look is a QEMU whose vCPU threads used processor time.
type look struct {
	*watched
	pid   int
	ended bool // it stood still and was killed: that is what took the time
}

// waiter is a QEMU that was launched to wait.
type waiter struct {
	heard  chan struct{} // closed when it is known what it was in when it was heard first
	client *qmp.Client   // nil: it was never heard
	early  string        // why it may have executed before it was heard; empty: it has not

	mu  sync.Mutex
	ran time.Time // when it was let run
}

// launchedToWait says whether a process is a QEMU that does not run by itself.
func launchedToWait(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(line, []byte("\x00-incoming\x00"))
}

// follow listens to a QEMU that is new on a host, if it was launched to wait, until
// it has ended or nobody needs to know any more.
func (r *Recorder) follow(ctx context.Context, l look) {
	if !launchedToWait(l.pid) {
		return
	}
	w := &waiter{heard: make(chan struct{})}
	r.mu.Lock()
	r.waiters[l.pid] = w
	r.mu.Unlock()
	r.tasks.Go(func() { w.listen(ctx, l, r.judged) })
}

func (w *waiter) listen(ctx context.Context, l look, judged func()) {
	client, err := dialWaiting(ctx, l)
	if err != nil {
		w.early = "it was never heard: " + err.Error()
		close(w.heard)
		return
	}
	defer client.Close()
	events, cancel := client.Events()
	defer cancel()
	status, err := qmp.QueryStatus(ctx, client)
	if err != nil {
		w.early = "it was never heard: " + err.Error()
	} else if status.Status != qmp.StateInMigrate {
		w.early = "it was heard first when it was " + status.Status
	}
	w.client = client
	close(w.heard)
	for {
		select {
		case e, open := <-events:
			if !open {
				return
			}
			if e.Name == "RESUME" {
				w.mu.Lock()
				if w.ran.IsZero() {
					w.ran = e.Time
				}
				w.mu.Unlock()
			}
		case <-ctx.Done():
			judged()
			return
		}
	}
}

// dialWaiting tries until the monitor is there or the process is not.
func dialWaiting(ctx context.Context, l look) (client *qmp.Client, err error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	for {
		if client, err = qmp.Dial(ctx, l.monitor(l.pid), nil); err == nil || ctx.Err() != nil || ended(l.pid) {
			return client, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// executed says why a QEMU counts as executing at a time, or that it cannot have.
func (r *Recorder) executed(ctx context.Context, l look, at time.Time) (why string, yes bool) {
	if l.ended {
		return "it was killed while it stood still", false
	}
	r.mu.Lock()
	w := r.waiters[l.pid]
	r.mu.Unlock()
	if w == nil {
		return "it was not launched to wait", true
	}
	select {
	case <-w.heard:
	case <-ctx.Done():
		return "it does not answer", true
	}
	if w.early != "" {
		return w.early, true
	}
	// What it said before this answer, or its end, has been read by then.
	_, _ = qmp.QueryStatus(ctx, w.client)
	time.Sleep(sampleEvery)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ran.IsZero() && !w.ran.After(at) {
		return "it was let run at " + w.ran.Format(time.StampMilli), true
	}
	return "it waits", false
}

// ended says whether a process is gone, or only waits to be reaped.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// judge finds out whether QEMUs whose vCPU threads used processor time at the
// same time have both executed the guest by then.
func (r *Recorder) judge(ctx context.Context, at time.Time, both []look) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askBound)
	defer cancel()
	text := at.Format(time.StampMilli) + ": vCPUs ran on both hosts"
	for _, l := range both {
		why, yes := r.executed(ctx, l, at)
		text += fmt.Sprintf("; on %s process %d: %s", l.name, l.pid, why)
		if !yes {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.started = append(r.started, text)
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overlaps = append(r.overlaps, text)
}

// judged waits until nothing is being judged any more.
func (r *Recorder) judged() {
	for r.judging.Load() > 0 {
		time.Sleep(sampleEvery)
	}
}

// monitored is a QEMU that has, when it is launched to wait, a third QMP socket.
const monitored = `#!/bin/sh
case " $* " in *" -incoming "*) set -- "$@" -qmp "unix:DIR/$$,server=on,wait=off";; esac
exec QEMU "$@"
`

// monitors is where the sockets of the host's waiting QEMUs are, and the program
// that makes them.
func (h *Host) monitors() string { return h.dir + ".qmp" }

// OwnQEMU is the QEMU that the host runs if nothing else is installed on it.
func (h *Host) OwnQEMU() string { return filepath.Join(h.monitors(), "bin", "qemu-system-x86_64") }

func (h *Host) installQEMU() error {
	qemu, err := exec.LookPath(filepath.Base(h.OwnQEMU()))
	if err != nil {
		return err
	}
	script := strings.NewReplacer("QEMU", qemu, "DIR", h.monitors()).Replace(monitored)
	return errors.Join(os.MkdirAll(filepath.Dir(h.OwnQEMU()), 0o700), os.WriteFile(h.OwnQEMU(), []byte(script), 0o700))
}

// watch is how the recorder looks at the host's QEMU of a guest.
