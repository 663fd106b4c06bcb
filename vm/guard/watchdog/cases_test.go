package watchdog

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/guard"
)

// TestArmedOnlyUnderALease goes through a guest's life: no lease, a lease, its end.
func TestArmedOnlyUnderALease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Forever)
	b.mustNotFire(500 * time.Millisecond)
	if _, opens, _ := b.device.seen(); opens != 0 {
		t.Fatal("armed for a guest without a lease")
	}
	b.renew(c, 300*time.Millisecond)
	b.armed(true)
	b.renew(c, 1500*time.Millisecond)
	if err := c.Renew(t.Context(), 7, guard.Forever); err != nil { // the witness is removed
		t.Fatal(err)
	}
	b.armed(false)
	b.renew(c, 300*time.Millisecond)
	b.armed(true)
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.armed(false)
	b.mustNotFire(0)
}

// TestIsolatedHostIsNotReset is the node that is alone: its guard freezes the guest,
// and the host lives, whether the guest is thawed later or not.
func TestIsolatedHostIsNotReset(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	b.renew(c, 500*time.Millisecond)
	b.until("frozen", func() bool { s, err := c.Status(t.Context()); return err == nil && s.Stopped })
	b.mustNotFire(2500 * time.Millisecond)
	b.renew(c, 1500*time.Millisecond)
	b.mustNotFire(0)
	b.armed(true)
}

// TestStoppedGuardResetsTheHost stops the guard: nobody freezes the guest, and the
// device fires before a takeover may happen.
func TestStoppedGuardResetsTheHost(t *testing.T) {
	t.Parallel()
	stood := standstills(t)
	b := newBench(t)
	other := b.guest(guard.Forever)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	pid := b.guardOf(c)
	deadline := b.renew(c, 500*time.Millisecond)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	var fired int64
	b.until("reset", func() bool { _, _, fired = b.device.seen(); return fired != 0 })
	// The keeper is in this process: while that stood still, nobody could feed.
	still := int64(stood())
	if fired > deadline+int64(stop)+still {
		t.Errorf("reset %v after the deadline, %v are allowed", time.Duration(fired-deadline), stop)
	}
	if fired < deadline-still {
		t.Errorf("reset %v before the deadline", time.Duration(deadline-fired))
	}
	_ = other.KillNow()
}

// TestKilledInTime is the agent's part: it kills QEMU when the guard does not answer,
// and the host is not reset.
func TestKilledInTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	pid := b.guardOf(c)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	if err := c.KillNow(); err != nil {
		t.Fatal(err)
	}
	b.armed(false)
	b.mustNotFire(1500 * time.Millisecond)
}

// TestKilledGuard: the kernel kills QEMU with its guard, so nothing is left to fear.
func TestKilledGuard(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	if err := syscall.Kill(b.guardOf(c), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.armed(false)
	b.mustNotFire(0)
}

// TestEnd: a keeper that is asked to end waits for the guests; one without agent and
// guests ends by itself. Either way the device is disarmed.
func TestEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	b.end()
	b.agent.Close()
	b.renew(c, 1500*time.Millisecond)
	b.mustNotFire(0)
	b.armed(true)
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.untilEnded()
	if open, _, fired := b.device.seen(); open || fired != 0 {
		t.Errorf("left armed (%v), fired at %d", open, fired)
	}
}

func TestNoWayOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.device.be(true, nil)
	c := b.guest(guard.Now() + 2*second)
	b.armed(true)
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mustNotFire(1500 * time.Millisecond)
	if s, err := b.agent.State(t.Context()); err != nil || !s.Armed || !s.NoWayOut || s.Guests != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	b.device.be(false, nil) // else the keeper would never end
}

func TestBrokenDevice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.device.be(false, errors.New("no such device"))
	c := b.guest(guard.Now() + 2*second)
	b.until("the failure is told", func() bool {
		s, err := b.agent.State(t.Context())
		return err == nil && !s.Armed && s.Guests == 1 && s.Failure == "no such device"
	})
	b.device.be(false, nil)
	b.renew(c, 1500*time.Millisecond)
	b.armed(true)
}

// TestWatchTwice: an agent that was restarted names guests that are known already.
func TestWatchTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.guest(guard.Forever)
	for range 3 {
		if s, err := b.agent.Watch(t.Context(), c.Launch().ConfigPath); err != nil || s.Guests != 1 {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if s, err := b.agent.Watch(t.Context(), "/nonexistent/guard.json"); err != nil || s.Refused != "" || s.Guests != 1 {
		t.Errorf("a guard that is gone: %+v, %v", s, err)
	}
}

func TestSecondKeeperIsRefused(t *testing.T) {
	b := newBench(t)
	if _, err := listen(b.dir + "/keeper"); !errors.Is(err, ErrRunning) {
		t.Errorf("%v", err)
	}
}

// TestOpenRefuses what is no watchdog.
func TestOpenRefuses(t *testing.T) {
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{path, path + "/none", os.DevNull} {
		if d, err := Open(bad); err == nil {
			t.Errorf("%s is taken for a watchdog: %+v", bad, d)
		}
	}
	if s := Look(path + "/none"); s != (Sight{}) {
		t.Errorf("%+v", s)
	}
}
