package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Power is what a device says of a node.
type Power int

// The answers of a device; Unknown is none.
const (
	Unknown Power = iota
	On
	Off
)

// String is for people.
func (p Power) String() string { return [...]string{"unknown", "on", "off"}[p] }

// pause is the time between two calls of an agent.
const pause = time.Second

func (d Device) timeout() time.Duration {
	if d.Timeout == 0 {
		return DefaultTimeout
	}
	return d.Timeout
}

// Off powers the node off and returns nil only when the device confirmed that
// it is off. It waits Delay first, and returns after Delay + Timeout at most
// (and a second in which an agent is killed). When ctx ends it stops at once;
// an off that was sent may still happen. Errors wrap ErrAgent or
// ErrNotConfirmed.
func (d Device) Off(ctx context.Context, log *slog.Logger) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, d.Delay+d.timeout(), errors.New("the fence timeout is over"))
	defer cancel()
	a, err := d.prepare(ctx, log)
	if err != nil {
		return err
	}
	if d.Delay > 0 {
		a.log.Info("waiting before fencing", "delay", d.Delay)
		if err := sleep(ctx, d.Delay-time.Since(began)); err != nil {
			return fmt.Errorf("%w: nothing was sent to the device: %w", ErrAgent, err)
		}
	}
	if err := a.off(ctx); err != nil {
		return err
	}
	return a.confirm(ctx)
}

// off asks for off until the agent accepts it.
func (a *agent) off(ctx context.Context) error {
	for {
		r, said, err := a.ask(ctx, "off")
		if err == nil {
			if r.code == 0 {
				return nil
			}
			err = fmt.Errorf("exit code %d: %s", r.code, said)
		}
		err = fmt.Errorf("%w: power off with %s: %w", ErrAgent, a.device.Agent, err)
		if stopped := sleep(ctx, pause); stopped != nil {
			return fmt.Errorf("%w (%w)", err, stopped)
		}
	}
}

// confirm asks for the status until it is off.
func (a *agent) confirm(ctx context.Context) error {
	for {
		power, err := a.status(ctx)
		if power == Off {
			a.log.Info("fenced: the device says that the node is off")
			return nil
		}
		if err == nil {
			err = errors.New("it says that the node is on")
		}
		err = fmt.Errorf("%w: %s accepted to power off, then: %w", ErrNotConfirmed, a.device.Agent, err)
		if stopped := sleep(ctx, pause); stopped != nil {
			return fmt.Errorf("%w (%w)", err, stopped)
		}
	}
}

// status asks once. The power is Unknown exactly if there is an error.
func (a *agent) status(ctx context.Context) (Power, error) {
	r, said, err := a.ask(ctx, "status")
	if err != nil {
		return Unknown, fmt.Errorf("ask for the status: %w", err)
	}
	power := r.power()
	if power == Unknown {
		return Unknown, fmt.Errorf("ask for the status: no clear answer (exit code %d: %s)", r.code, said)
	}
	return power, nil
}

// Verify asks the device for the node's power and changes nothing: for checks
// of the configuration before it is needed. Off for a node that is known to be
// up means that the device is another one's. Without an error the power is
// known; errors wrap ErrAgent. It takes no longer than Timeout.
func (d Device) Verify(ctx context.Context, log *slog.Logger) (Power, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout(), errors.New("the fence timeout is over"))
	defer cancel()
	a, err := d.prepare(ctx, log)
	if err != nil {
		return Unknown, err
	}
	power, err := a.status(ctx)
	if err != nil {
		return Unknown, fmt.Errorf("%w: %s: %w", ErrAgent, d.Agent, err)
	}
	return power, nil
}

// sleep waits and returns why ctx ended before that, if it did.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
