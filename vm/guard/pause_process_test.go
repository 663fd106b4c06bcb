package guard

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPauseEndedInTime(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	ctx := t.Context()
	if err := b.client.BeginPause(ctx, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := b.client.BeginPause(ctx, 2, time.Minute); !errors.Is(err, ErrPauseBusy) {
		t.Errorf("second pause: %v", err)
	}
	stopGuest(t, b.launch.QMPSocket)
	if ended, err := b.client.EndPause(ctx, 1); ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}
	if err := b.client.BeginPause(ctx, 1, time.Minute); !errors.Is(err, ErrPauseUsed) {
		t.Errorf("used id: %v", err)
	}
	if _, err := b.client.EndPause(ctx, 9); !errors.Is(err, ErrPauseUnknown) {
		t.Errorf("unknown id: %v", err)
	}
	// The guest was left stopped on purpose; not even the end of the client moves it.
	second := b.attach()
	_ = b.client.Close()
	b.client = second
	if s := b.status(); s.Resuming || s.Pause != 0 || b.board.Conts.Load() != 0 {
		t.Errorf("the guard touched a guest that was stopped on purpose: %+v", s)
	}
}

func TestPauseEndedByGuard(t *testing.T) {
	t.Run("bound", func(t *testing.T) {
		t.Parallel()
		b := startBench(t)
		ctx := t.Context()
		if err := b.client.BeginPause(ctx, 1, 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		stopGuest(t, b.launch.QMPSocket)
		b.untilTicks()
		if s := b.status(); !s.PauseEnded {
			t.Errorf("the guest runs, but its pause does not count as ended: %+v", s)
		}
		// A stop that comes too late must not leave the guest standing.
		stopGuest(t, b.launch.QMPSocket)
		b.untilTicks()
		if ended, err := b.client.EndPause(ctx, 1); !ended || err != nil {
			t.Errorf("ended %v, %v", ended, err)
		}
		if ended, err := b.client.EndPause(ctx, 1); !ended || err != nil {
			t.Errorf("asked again: ended %v, %v", ended, err)
		}
		if err := b.client.BeginPause(ctx, 2, time.Minute); err != nil {
			t.Errorf("next pause: %v", err)
		}
	})
	t.Run("agent killed", func(t *testing.T) {
		t.Parallel()
		b := startBench(t)
		agent, _ := b.run("agent", "AGENT_PAUSE=1")
		stopGuest(t, b.launch.QMPSocket)
		b.renew(Forever)
		b.board.LateStop.Store(1) // the agent's own, read after the guard's cont
		_ = agent.Process.Kill()
		b.untilTicks()
		b.until("continued again", func() bool { return b.board.Conts.Load() == 2 })
		b.until("settled", func() bool { return !b.status().Resuming })
		if ended, err := b.client.EndPause(t.Context(), 1); !ended || err != nil {
			t.Errorf("ended %v, %v", ended, err)
		}
	})
}

// The answer "not ended" and the guard's cont exclude each other, also when QMP
// hangs, and a hung QMP does not hold up the lease.
func TestHungMonitor(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	ctx := t.Context()
	// Before the pause begins, which is nothing of the monitor's: the bound may be over
	// before this process does anything more.
	stopGuest(t, b.launch.QMPSocket)
	b.board.Hang.Store(1)
	if err := b.client.BeginPause(ctx, 1, 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	b.until("pause ended", func() bool { return b.status().PauseEnded })
	if b.board.Conts.Load() != 0 {
		t.Error("a hung QEMU has continued")
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if ended, err := b.client.EndPause(short, 1); !ended || !errors.Is(err, ErrPauseBusy) {
		t.Errorf("ended %v, %v", ended, err)
	}
	if err := b.client.BeginPause(ctx, 2, time.Minute); !errors.Is(err, ErrPauseBusy) {
		t.Errorf("pause while a cont is on its way: %v", err)
	}
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	b.mustBeStill()
	b.renew(Forever)
	b.board.Hang.Store(0)
	b.untilTicks()
	b.until("settled", func() bool { return !b.status().Resuming })
	if err := b.client.BeginPause(ctx, 2, time.Minute); err != nil {
		t.Errorf("pause after it: %v", err)
	}
}

// A guest that stopped for a reason of its own is not continued.
func TestForeignStopIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	b.board.Status.Store(2) // io-error
	b.board.Paused.Store(1)
	if err := b.client.BeginPause(t.Context(), 1, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if ended, err := b.client.EndPause(t.Context(), 1); err != nil {
		t.Fatal(ended, err)
	}
	second := b.attach()
	if err := second.BeginPause(t.Context(), 2, time.Minute); err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
	b.until("pause ended", func() bool { ended, err := b.client.EndPause(t.Context(), 2); return ended && err == nil })
	if n := b.board.Conts.Load(); n != 0 {
		t.Errorf("a guest with an I/O error was continued %d times", n)
	}
}
