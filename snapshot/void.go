package snapshot

import (
	"context"
	"fmt"

	"vmctl/snapshot/replica"
)

// voiding asks the goroutine that takes checkpoints to void them.
type voiding struct {
	ctx    context.Context
	reason string
	done   chan error // capacity 1
}

// Void tells the replica that the guest was ended on purpose, between two
// checkpoints: the one under way is sent first. It needs a link.
func (p *Protector) Void(ctx context.Context, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	p.mu.Lock()
	loop := p.loop
	p.mu.Unlock()
	if loop == nil {
		return replica.ErrLink
	}
	v := voiding{ctx, reason, make(chan error, 1)}
	select {
	case p.voidings <- v:
		return <-v.done
	case <-loop:
		return replica.ErrLink
	case <-ctx.Done():
		return fmt.Errorf("void the replica's checkpoints: %w", ctx.Err())
	}
}

// looping says that checkpoints are taken, until what it returns is called.
func (p *Protector) looping() (end func()) {
	loop := make(chan struct{})
	set := func(now chan struct{}) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.loop = now
	}
	set(loop)
	return func() { set(nil); close(loop) }
}
