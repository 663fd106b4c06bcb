package guard

import (
	"context"
	"fmt"
	"time"
)

// settlePoll is how often the guard is asked whether its `cont` is done.
const settlePoll = 20 * time.Millisecond

// BeginPause announces that the guest will be stopped for a checkpoint. If EndPause
// does not follow within bound (at most 10 minutes), or this client goes away, the
// guard ends the pause and lets the guest continue. Ids must rise, from 1; a guest
// the user paused must not get a pause. ErrPauseBusy: another pause is open, or the
// guard is still ending one; try again later. ErrPauseUsed, ErrGone.
func (c *Client) BeginPause(ctx context.Context, id uint64, bound time.Duration) error {
	_, err := c.call(ctx, verbPauseBegin, id, uint64(max(bound, 0)))
	return err
}

// EndPause closes a pause. ended: the guard let the guest continue before this call,
// so whatever was captured in the pause must be thrown away. Otherwise the guard has
// not let it continue and never will on account of this pause.
//
// With ended it returns only when no `cont` of the guard is on its way any more, so
// that a later stop cannot be undone by it; if ctx ends before that, ended is true
// and the error is ErrPauseBusy.
func (c *Client) EndPause(ctx context.Context, id uint64) (ended bool, err error) {
	words, err := c.call(ctx, verbPauseEnd, id)
	if err != nil {
		return false, err
	}
	if len(words) != 1 || words[0] != "0" && words[0] != "1" {
		return true, fmt.Errorf("%w: answer %.60q to pause-end", ErrMalformed, words)
	}
	if words[0] == "0" {
		return false, nil
	}
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for {
		s, err := c.Status(ctx)
		if ctx.Err() != nil {
			return true, fmt.Errorf("%w: %w", ErrPauseBusy, ctx.Err())
		}
		if err != nil {
			return true, err
		}
		if !s.Resuming {
			return true, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
