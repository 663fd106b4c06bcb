package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrHandedOver ends Protect when the guest was given to the peer.
var ErrHandedOver = errors.New("the guest was handed over to the peer")

// handBound is how long a guest may stand still to be handed over, until its
// last checkpoint has arrived; then it goes on here.
const handBound = 20 * time.Second

// handing asks the goroutine that takes checkpoints for a last one.
type handing struct {
	ctx  context.Context
	give func(context.Context, uint64) error
	done chan error // capacity 1
}

// HandOver stops the guest, brings its last checkpoint to the peer, and calls
// give with its number, which makes the peer the owner and ends QEMU here. When
// anything fails, give included, the guest goes on here. It needs a link whose
// replica is complete, and waits for one until ctx ends.
func (p *Protector) HandOver(ctx context.Context, give func(ctx context.Context, sequence uint64) error) error {
	if p.sender == nil {
		return errors.New("hand the guest over: it has no checkpoints")
	}
	h := handing{ctx: ctx, give: give, done: make(chan error, 1)}
	select {
	case p.handings <- h:
		return <-h.done
	case <-ctx.Done():
		return fmt.Errorf("hand the guest over: its replica is not ready: %w", ctx.Err())
	}
}

// handOver is HandOver in the goroutine that takes checkpoints.
func (p *Protector) handOver(ctx context.Context, give func(context.Context, uint64) error) error {
	var taken capture
	var err error
	if taken.Sequence, err = p.sender.Number(); err != nil {
		return fmt.Errorf("hand the guest over: %w", err)
	}
	if _, _, err := p.lookAhead(ctx); err != nil {
		return fmt.Errorf("hand the guest over: %w", err)
	}
	err = p.config.Machine.Exclusive(ctx, func(ctx context.Context) (err error) {
		running, err := p.stopGuest(ctx, &taken, handBound)
		defer func() {
			if err != nil {
				_, goErr := p.goOn(ctx, taken.Sequence, running)
				err = errors.Join(err, goErr)
			}
		}()
		if err != nil {
			return err
		}
		if err := p.take(ctx, &taken); err != nil {
			return err
		}
		if _, err := p.sender.Send(ctx, taken.Outgoing); err != nil {
			return err
		}
		return p.letGo(ctx, taken.Sequence, running, give)
	})
	if err != nil {
		p.finder.Doubt()
		return fmt.Errorf("hand the guest over: %w", err)
	}
	return nil
}

// letGo gives the guest away if it has stood still all the time: from here on
// the guard does not continue it any more.
func (p *Protector) letGo(ctx context.Context, id uint64, running bool, give func(context.Context, uint64) error) error {
	if !running {
		return give(ctx, id)
	}
	ended, err := p.config.Machine.EndPause(ctx, id)
	if err != nil {
		return err
	}
	if ended {
		return ErrPauseEnded
	}
	return give(ctx, id)
}
