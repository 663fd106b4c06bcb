package guard

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFreezeAtDeadlineAndThaw(t *testing.T) {
	t.Parallel()
	b := startBench(t, "FAKE_GAP_US=0") // eight busy threads: a loaded machine
	b.untilTicks()
	deadline := b.lapse(150 * time.Millisecond)
	b.untilStopped()
	s := b.status()
	if !s.Frozen || s.Freezes != 1 || s.Deadline != deadline {
		t.Fatalf("status after the deadline: %+v", s)
	}
	b.mustBeStill()
	t.Logf("last tick %v after the deadline, stop sent after %v",
		time.Duration(b.board.lastTick()-deadline), time.Duration(s.FreezeNS))
	b.renew(Forever)
	b.untilTicks()
	if after := b.status(); after.PID != s.PID || after.StartTime != s.StartTime || after.Frozen || after.Stopped {
		t.Errorf("status after the thaw: %+v", after)
	}
}

func TestStrayContinueIsFrozenAgain(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	for range 3 {
		if err := syscall.Kill(b.client.PID(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		b.untilStopped()
		b.until("every thread stopped", func() bool { return len(runningThreads(t, b.client.PID())) == 0 })
		b.mustBeStill()
	}
	if s := b.status(); s.Freezes != 1 {
		t.Errorf("a repeated freeze counts as %d missed deadlines", s.Freezes)
	}
}

func TestRenewRefusals(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	ctx := t.Context()
	for _, c := range []struct {
		name  string
		epoch uint64
		at    int64
		want  error
	}{
		{"stale", 6, Forever, ErrStaleEpoch},
		{"unknown", 8, Forever, ErrUnknownEpoch},
		{"past", 7, Now(), ErrPastDeadline},
		{"negative", 7, -5, ErrPastDeadline},
	} {
		if err := b.client.Renew(ctx, c.epoch, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := b.client.Revoke(ctx, 6); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("stale revoke: %v", err)
	}
	if err := b.client.Revoke(ctx, 8); !errors.Is(err, ErrUnknownEpoch) {
		t.Errorf("unknown revoke: %v", err)
	}
	if err := b.client.Claim(ctx, 8, Forever); !errors.Is(err, ErrNotStandby) {
		t.Errorf("claim of a guest that is no standby: %v", err)
	}
	// A frozen guest is not thawed by any of these.
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	for epoch := range uint64(10) {
		if epoch != b.launch.Epoch {
			_ = b.client.Renew(ctx, epoch, Forever)
		}
	}
	_ = b.client.Renew(ctx, b.launch.Epoch, Now()-1)
	b.mustBeStill()
}

func TestRevokeKillsAndRecords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(b *bench) error
		want Reason
		sig  syscall.Signal
		env  string
	}{
		{"revoke", func(b *bench) error { return b.client.Revoke(b.Context(), 7) }, ReasonRevoked, syscall.SIGKILL, ""},
		{"revoke frozen", func(b *bench) error {
			b.lapse(200 * time.Millisecond)
			b.untilStopped()
			return b.client.Revoke(b.Context(), 7)
		}, ReasonRevoked, syscall.SIGKILL, ""},
		{"kill", func(b *bench) error { return b.client.Kill(b.Context()) }, ReasonKilled, syscall.SIGKILL, ""},
		{"terminate", func(b *bench) error { return b.client.Terminate(b.bounded(), time.Minute) }, ReasonTerminated, syscall.SIGTERM, ""},
		{"terminate deaf", func(b *bench) error { return b.client.Terminate(b.bounded(), 50*time.Millisecond) }, ReasonTerminated, syscall.SIGKILL, "FAKE_DEAF=1"},
		{"terminate frozen", func(b *bench) error {
			b.lapse(200 * time.Millisecond)
			b.untilStopped()
			return b.client.Terminate(b.bounded(), time.Minute)
		}, ReasonTerminated, syscall.SIGKILL, ""},
		{"freeze while terminating", func(b *bench) error {
			b.lapse(200 * time.Millisecond)
			return b.client.Terminate(b.bounded(), time.Minute)
		}, ReasonTerminated, syscall.SIGKILL, "FAKE_DEAF=1"},
		{"guard asked", func(b *bench) error { return syscall.Kill(b.status().GuardPID, syscall.SIGTERM) }, ReasonTerminated, syscall.SIGTERM, ""},
		{"others", func(b *bench) error { return b.client.KillNow() }, ReasonExited, syscall.SIGKILL, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := startBench(t, c.env)
			other := b.attach()
			pid := b.client.PID()
			b.untilTicks()
			if err := c.end(b); err != nil {
				t.Fatal(err)
			}
			r := b.untilDone()
			if alive(pid) {
				t.Error("QEMU is alive after its end was reported")
			}
			if r.PID != pid || r.Reason != c.want || r.Signal != int(c.sig) || r.Code != -1 || r.Time.IsZero() {
				t.Errorf("record %+v, want reason %s, signal %d", r, c.want, c.sig)
			}
			if !strings.Contains(r.Output, "fake QEMU starts") {
				t.Errorf("record lacks the output: %q", r.Output)
			}
			<-other.Done()
			if _, ok := other.Exit(); !ok {
				t.Error("the other client was not told")
			}
			if err := b.client.Renew(t.Context(), 7, Forever); !errors.Is(err, ErrGone) {
				t.Errorf("renewal of a guest that is gone: %v", err)
			}
			_, err := Attach(t.Context(), b.launch.ConfigPath)
			var gone *GoneError
			if !errors.As(err, &gone) || gone.Record == nil || gone.Record.PID != pid {
				t.Errorf("attach to a guest that is gone: %v", err)
			}
			if _, err := os.Stat(b.launch.Socket); err == nil {
				t.Error("the socket was left")
			}
		})
	}
}

// A frozen guest that is ended executes nothing more, whoever ends it.
func TestEndedWhereItStood(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *bench) error{
		"revoke":    func(b *bench) error { return b.client.Revoke(b.Context(), 7) },
		"kill":      func(b *bench) error { return b.client.Kill(b.Context()) },
		"terminate": func(b *bench) error { return b.client.Terminate(b.bounded(), time.Minute) },
		"others":    func(b *bench) error { return b.client.KillNow() },
		"guard":     func(b *bench) error { return syscall.Kill(b.status().GuardPID, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBench(t, "FAKE_GAP_US=0")
			b.untilTicks()
			b.lapse(200 * time.Millisecond)
			b.untilStopped()
			b.mustBeStill()
			pid, ticks := b.client.PID(), b.board.ticks()
			if err := end(b); err != nil {
				t.Fatal(err)
			}
			b.until("QEMU is gone", func() bool { return !alive(pid) })
			if more := b.board.ticks() - ticks; more != 0 {
				t.Errorf("the frozen guest ticked %d times while it was ended", more)
			}
		})
	}
}

func TestGuardKilledTakesQEMUAlong(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	s := b.status()
	if err := syscall.Kill(s.GuardPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.until("QEMU is gone", func() bool { return !alive(s.PID) })
	if r := b.untilDone(); r.PID != -1 {
		t.Errorf("there is a record of a guard that was killed: %+v", r)
	}
	if _, err := Attach(t.Context(), b.launch.ConfigPath); !errors.Is(err, ErrGone) {
		t.Errorf("attach: %v", err)
	}
}

// KillNow is for a guard that cannot act.
func TestKillWithoutGuard(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	s := b.status()
	_ = syscall.Kill(s.GuardPID, syscall.SIGSTOP)
	if err := b.client.KillNow(); err != nil {
		t.Fatal(err)
	}
	b.until("QEMU is gone", func() bool { return !alive(s.PID) })
	_ = syscall.Kill(s.GuardPID, syscall.SIGCONT)
	b.untilDone()
}
