package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vmctl/vm/qmp"
)

// The vCPU threads of a QEMU that only waits for a guest's state use processor
// time too, to start (1.6 ms) and to load the state; the vm package has the test
// that it executes nothing meanwhile. Two hosts on which they do are therefore no
// proof of two executions: the QEMU that was launched to wait is asked. QEMU
// enters the state inmigrate at its launch and never again, so one that is in it
// has not executed yet. Whoever does not say so counts as executing.

// askBound is how long a QEMU may take to answer: it may have just begun to start.
const askBound = 10 * time.Second

// watched is one host as the recorder looks at it.
type watched struct {
	name    string
	process func(context.Context) int // of the guest's QEMU, 0: none
	monitor func(pid int) string      // a QMP socket for the recorder alone
}

// look is a QEMU whose vCPU threads used processor time.
type look struct {
	*watched
	pid int
}

// executed says why one QEMU counts as executing, or that it cannot have.
func (l look) executed(ctx context.Context) (why string, yes bool) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", l.pid))
	if err == nil && len(line) > 0 && !bytes.Contains(line, []byte("\x00-incoming\x00")) {
		return "it was not launched to wait", true
	}
	var status qmp.Status
	for ctx.Err() == nil {
		if status, err = l.status(ctx); err == nil {
			break
		}
		if ended(l.pid) {
			return "it cannot be asked: " + err.Error(), true
		}
		time.Sleep(5 * time.Millisecond) // its monitor is not there yet
	}
	if err != nil {
		return "it does not answer: " + err.Error(), true
	}
	return "it is " + status.Status, status.Status != qmp.StateInMigrate
}

func (l look) status(ctx context.Context) (qmp.Status, error) {
	client, err := qmp.Dial(ctx, l.monitor(l.pid), nil)
	if err != nil {
		return qmp.Status{}, err
	}
	defer client.Close()
	return qmp.QueryStatus(ctx, client)
}

// ended says whether a process is gone, or only waits to be reaped.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// judge finds out whether QEMUs whose vCPU threads used processor time at the
// same time have both executed the guest by now.
func (r *Recorder) judge(ctx context.Context, at time.Time, both []look) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askBound)
	defer cancel()
	text := at.Format(time.StampMilli) + ": vCPUs ran on both hosts"
	for _, l := range both {
		why, yes := l.executed(ctx)
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

// Judged waits until no QEMU is being asked any more: one that is killed before
// it has answered counts as executing.
func (r *Recorder) Judged(ctx context.Context) error {
	return Eventually(ctx, askBound, func() error {
		if n := r.judging.Load(); n > 0 {
			return fmt.Errorf("the recorder still asks %d times whether a QEMU has executed", n)
		}
		return nil
	})
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
func (h *Host) watch(uuid string) *watched {
	return &watched{
		name:    h.Name,
		process: func(ctx context.Context) int { return h.Process(ctx, uuid) },
		monitor: func(pid int) string { return filepath.Join(h.monitors(), strconv.Itoa(pid)) },
	}
}
