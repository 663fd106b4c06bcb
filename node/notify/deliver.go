package notify

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// The pause between two attempts doubles from the first to the last.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// after is an error with the target's own word on when to try again.
type after struct {
	error
	pause time.Duration
}

func (a after) Unwrap() error { return a.error }

// deliver gives t its events, in order, until ctx ends.
func (n *Notifier) deliver(ctx context.Context, t *target) {
	for {
		n.mu.Lock()
		d, ok := t.queue.take()
		n.mu.Unlock()
		if !ok {
			select {
			case <-t.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := n.insist(ctx, t, d)
		if ctx.Err() != nil && err != nil {
			return
		}
		n.mu.Lock()
		t.queue.done(d, err != nil)
		t.ended++
		t.failing, t.reason = time.Time{}, err
		if err == nil {
			t.told++
		}
		n.mu.Unlock()
	}
}

// insist tries until the delivery is taken or refused, or ctx ends. The log gets
// one line when a target fails and one when it works again.
func (n *Notifier) insist(ctx context.Context, t *target, d Delivery) error {
	var failing time.Time
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := t.send(ctx, d)
		switch {
		case err == nil:
			if !failing.IsZero() {
				n.log.Info("notifications are delivered again", "target", t.name(), "after", time.Since(failing).Round(time.Second))
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errRefused):
			n.log.Warn("a notification was refused", "target", t.name(), "event", d.Kind, "error", err)
			return err
		}
		if failing.IsZero() {
			failing = time.Now()
			n.fails(t, failing, err)
			n.log.Warn("cannot deliver notifications; they wait", "target", t.name(), "error", err)
		} else {
			n.fails(t, failing, err)
			n.log.Debug("cannot deliver notifications", "target", t.name(), "error", err)
		}
		// Not all nodes at once when a target comes back.
		wait := pause/2 + rand.N(pause/2)
		if a, ok := errors.AsType[after](err); ok {
			wait = max(wait, a.pause)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
