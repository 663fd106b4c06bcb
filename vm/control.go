package vm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Ended says how a guest was brought to its end.
type Ended string

// Values of Ended.
const (
	EndedByGuest  Ended = "guest"      // it shut itself down when asked
	EndedByQuit   Ended = "terminated" // it did not, QEMU was ended in order
	EndedByKill   Ended = "killed"     // QEMU had to be killed
	EndedAlready  Ended = "stopped"    // it was gone before it was asked
	quitBound           = 5 * time.Second
	powerdownEach       = 5 * time.Second
)

// RunState asks QEMU what the guest does.
func (g *Guest) RunState(ctx context.Context) (RunState, error) {
	if g.isGone() {
		return StateStopped, nil
	}
	state, err := g.query(ctx)
	if err != nil {
		if g.isGone() {
			return StateStopped, nil
		}
		return "", fmt.Errorf("ask guest %q for its state: %w", g.spec.Name, err)
	}
	return state, nil
}

func (g *Guest) query(ctx context.Context) (RunState, error) {
	var reply struct {
		Status RunState `json:"status"`
	}
	if err := g.execute(ctx, "query-status", &reply); err != nil {
		return "", err
	}
	return reply.Status, nil
}

// execute runs a command that takes no arguments and no time.
func (g *Guest) execute(ctx context.Context, command string, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	if err := g.monitor.Execute(ctx, command, nil, reply); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// change runs a command that changes the run state.
func (g *Guest) change(ctx context.Context, what, command string) error {
	return g.Exclusive(ctx, func(ctx context.Context) error {
		if err := g.execute(ctx, command, nil); err != nil {
			return fmt.Errorf("%s guest %q: %w", what, g.spec.Name, err)
		}
		return nil
	})
}

// Pause stops the guest's CPUs until Unpause.
func (g *Guest) Pause(ctx context.Context) error { return g.change(ctx, "pause", "stop") }

// Unpause lets the guest's CPUs run.
func (g *Guest) Unpause(ctx context.Context) error { return g.change(ctx, "unpause", "cont") }

// Reset is the reset button. A guest that had panicked runs again.
func (g *Guest) Reset(ctx context.Context) error {
	return g.Exclusive(ctx, func(ctx context.Context) error {
		err := g.execute(ctx, "system_reset", nil)
		if err == nil {
			var state RunState
			if state, err = g.query(ctx); err == nil && state != StateRunning && state != StatePaused {
				err = g.execute(ctx, "cont", nil)
			}
		}
		if err != nil {
			return fmt.Errorf("reset guest %q: %w", g.spec.Name, err)
		}
		return nil
	})
}

// Shutdown presses the power button and gives the guest the bound to shut
// itself down; then QEMU is ended, in order if possible. It returns when QEMU
// is gone and says which it was. If ctx ends first the guest may run on.
func (g *Guest) Shutdown(ctx context.Context, bound time.Duration) (Ended, error) {
	if g.isGone() {
		return EndedAlready, nil
	}
	g.markRequested()
	if g.powerdown(ctx, bound) {
		return EndedByGuest, nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("shut down guest %q: %w", g.spec.Name, ctx.Err())
	}
	// QEMU may itself hang, on a peer's disk for example. The guard kills it
	// then, so this is bounded too.
	if err := g.guard.Terminate(ctx, quitBound); err != nil {
		g.log.Warn("cannot end the guest in order, killing it", "error", err)
		return EndedByKill, g.Kill(ctx)
	}
	if err := g.awaitGone(ctx, quitBound+killWait); err != nil {
		return "", fmt.Errorf("shut down guest %q: %w", g.spec.Name, err)
	}
	if record := g.guard.Record(); record == nil || record.Signal != 0 {
		return EndedByKill, nil
	}
	return EndedByQuit, nil
}

// powerdown reports whether the guest shut itself down in time.
func (g *Guest) powerdown(ctx context.Context, bound time.Duration) bool {
	limit := time.NewTimer(bound)
	defer limit.Stop()
	again := time.NewTicker(powerdownEach)
	defer again.Stop()
	// A monitor that hangs, or a long checkpoint, takes no more than the bound.
	pressing, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		if !g.press(pressing) {
			return false
		}
		select {
		case <-g.guard.Gone():
			<-g.finished
			record := g.guard.Record()
			return record != nil && record.Signal == 0
		case <-limit.C:
			return false
		case <-ctx.Done():
			return false
		case <-again.C:
			// A guest that was still booting has not seen it.
		}
	}
}

// press presses the power button, if the guest is able to notice.
func (g *Guest) press(ctx context.Context) bool {
	err := g.Exclusive(ctx, func(ctx context.Context) error {
		state, err := g.query(ctx)
		if err != nil {
			return err
		}
		switch state {
		case StatePaused, StateSuspended:
			wake := map[RunState]string{StatePaused: "cont", StateSuspended: "system_wakeup"}[state]
			if err := g.execute(ctx, wake, nil); err != nil {
				return err
			}
		case StateRunning:
		default:
			return fmt.Errorf("its state is %s", state)
		}
		return g.execute(ctx, "system_powerdown", nil)
	})
	if g.isGone() { // the answer is lost if QEMU was faster
		return true
	}
	if err != nil && ctx.Err() == nil {
		g.log.Info("the guest cannot shut itself down", "error", err)
	}
	return err == nil
}

// Kill ends QEMU at once, as if the power was cut, and waits until it is gone.
func (g *Guest) Kill(ctx context.Context) error {
	g.markRequested()
	killErr := killBy(ctx, g.guard)
	if err := g.awaitGone(ctx, killWait); err != nil {
		return errors.Join(fmt.Errorf("kill guest %q: %w", g.spec.Name, err), killErr)
	}
	return nil
}

// awaitGone works after Close too, when nobody watches any more.
func (g *Guest) awaitGone(ctx context.Context, bound time.Duration) error {
	limit := time.NewTimer(bound)
	defer limit.Stop()
	select {
	case <-g.guard.Gone():
		<-g.finished // it is quick now
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("QEMU is not gone after %v; it may hang in the kernel", bound)
	}
}
