package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The vCPU threads of a QEMU that only waits for a guest's state use processor
// time too, to start (1.6 ms), to load the state, and when it is killed; the vm
// package has the test that it executes nothing meanwhile. Two hosts on which they
// do are therefore no proof of two executions. Every QEMU of a guest writes down
// when it lets its vCPUs run, before it does (trace event vm_state_notify,
// softmmu/cpus.c vm_prepare_start): whoever has not written that has executed
// nothing, also if it was killed at once. A QEMU without such a record counts as
// executing, unless its threads were stopped before and only used the time to end.

// look is a QEMU whose vCPU threads used processor time.
type look struct {
	*watched
	pid   int
	ended bool // it stood still and was killed: that is what took the time
}

// executed says why a QEMU counts as executing at a time, or that it cannot have.
func (l look) executed(at time.Time) (why string, yes bool) {
	if l.ended {
		return "it was killed while it stood still", false
	}
	record, err := os.ReadFile(l.runs(l.pid))
	if err != nil {
		return "there is no record of when it ran: " + err.Error(), true
	}
	ran, err := firstRun(string(record))
	switch {
	case err != nil:
		return err.Error(), true
	case ran.IsZero() || ran.After(at):
		return "it waits", false
	}
	return "it was let run at " + ran.Format(time.StampMilli), true
}

// firstRun is when a QEMU let its vCPUs run first, by its own record; zero if it
// has not. A line is PID@SECONDS.MICROSECONDS:EVENT (QEMU's trace backend log).
func firstRun(record string) (time.Time, error) {
	for line := range strings.Lines(record) {
		stamp, _, found := strings.Cut(line, "vm_state_notify running 1 ")
		if !found {
			continue
		}
		_, stamp, _ = strings.Cut(strings.TrimSuffix(stamp, ":"), "@")
		seconds, micros, _ := strings.Cut(stamp, ".")
		s, err := strconv.ParseInt(seconds, 10, 64)
		us, err2 := strconv.ParseInt(micros, 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return time.Time{}, fmt.Errorf("when it ran is not to be read: %w", err)
		}
		return time.Unix(s, us*int64(time.Microsecond)), nil
	}
	return time.Time{}, nil
}

// judge finds out whether QEMUs whose vCPU threads used processor time at the
// same time have both executed the guest by then.
func (r *Recorder) judge(at time.Time, both []look) {
	text, executions := at.Format(time.StampMilli)+": vCPUs ran on both hosts", 0
	for _, l := range both {
		why, yes := l.executed(at)
		text += fmt.Sprintf("; on %s process %d: %s", l.name, l.pid, why)
		if yes {
			executions++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if executions == len(both) {
		r.overlaps = append(r.overlaps, text)
	} else {
		r.started = append(r.started, text)
	}
}

// recorded is a QEMU that writes down when it lets a guest run.
const recorded = `#!/bin/sh
case " $* " in *" -uuid "*) set -- "$@" -msg timestamp=on -trace vm_state_notify -D "DIR/$$";; esac
exec QEMU "$@"
`

// runs is where the records of the host's QEMUs are, and the program that makes
// them.
func (h *Host) runs() string { return h.dir + ".qemu" }

// OwnQEMU is the QEMU that the host runs if nothing else is installed on it.
func (h *Host) OwnQEMU() string { return filepath.Join(h.runs(), "bin", "qemu-system-x86_64") }

func (h *Host) installQEMU() error {
	qemu, err := exec.LookPath(filepath.Base(h.OwnQEMU()))
	if err != nil {
		return err
	}
	script := strings.NewReplacer("QEMU", qemu, "DIR", h.runs()).Replace(recorded)
	return errors.Join(os.MkdirAll(filepath.Dir(h.OwnQEMU()), 0o700), os.WriteFile(h.OwnQEMU(), []byte(script), 0o700))
}
