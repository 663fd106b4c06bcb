package guard

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

func TestIsolation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		launch  Isolation
		set     Isolation // while it runs; empty: left alone
		stopped bool
	}{
		{"default", "", "", false},
		{"freeze", Freeze, "", false},
		{"stop", Stop, "", true},
		{"stop, said later", Freeze, Stop, true},
		{"freeze, said later", Stop, Freeze, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.launch.Isolation = c.launch
			b.start()
			if c.set != "" {
				if err := b.client.SetIsolation(t.Context(), c.set); err != nil {
					t.Fatal(err)
				}
			}
			b.untilTicks()
			pid, deadline := b.client.PID(), b.lapse(200*time.Millisecond)
			if !c.stopped {
				b.untilStopped()
				b.mustBeStill()
				b.renew(Forever)
				b.untilTicks()
				return
			}
			r := b.untilDone()
			if r.Reason != ReasonIsolated || r.Signal != int(syscall.SIGKILL) || r.PID != pid {
				t.Errorf("record %+v", r)
			}
			if at := r.Time.Sub(time.Now().Add(time.Duration(deadline - Now()))); at < -time.Millisecond {
				t.Errorf("ended %v before the deadline", -at)
			}
			if err := b.client.Renew(t.Context(), 7, Forever); !errors.Is(err, ErrGone) {
				t.Errorf("a renewal after the end: %v", err)
			}
		})
	}
}

func TestIsolationRefused(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	if err := b.client.SetIsolation(t.Context(), "thaw"); !errors.Is(err, ErrMalformed) {
		t.Errorf("unknown word: %v", err)
	}
	if _, err := b.client.call(t.Context(), verbIsolation, 2); !errors.Is(err, ErrMalformed) {
		t.Errorf("unknown number: %v", err)
	}
	l := b.launch
	l.ID, l.Isolation = "x", "thaw"
	if err := l.Validate(); err == nil {
		t.Error("a launch with an unknown isolation is taken")
	}
}
