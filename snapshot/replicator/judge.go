package replicator

import (
	"context"
	"time"
)

// How Verify judges a chunk that seems to differ.
const (
	looksPerRound = 5  // one equal look is proof
	roundsToTrust = 2  // differing rounds in which nothing wrote to the chunk
	mostRounds    = 30 // then the guest writes it too often to be judged
)

// suspect is a chunk that seemed to differ.
type suspect struct {
	watch     *batch
	disturbed int // of the link when the round began
	differing int // rounds in a row that prove something
}

// batch compares one batch and judges what seems to differ in it.
func (p *verification) batch(ctx context.Context, b *batch, v *Verified) error {
	runs, err := p.look(ctx, b)
	if err != nil {
		return err
	}
	var suspects []*suspect
	for _, r := range runs {
		for from := r.from; from < r.to; from += ChunkSize {
			chunk := &batch{disk: b.disk, off: b.off + from, length: min(ChunkSize, r.to-from)}
			suspects = append(suspects, &suspect{watch: chunk})
		}
	}
	for round := 0; len(suspects) > 0 && len(v.Differs) == 0; round++ {
		if round == mostRounds {
			for _, s := range suspects {
				v.Unsettled += s.watch.length
			}
			return nil
		}
		if suspects, err = p.judge(ctx, suspects, v); err != nil {
			return err
		}
	}
	return nil
}

// judge looks at suspects again and returns those that are still in doubt.
//
// What was forwarded before the peer was asked for a sum is in that sum, for the
// question stands behind it in the stream. So a write may be in the live disk
// and not in the sum for two reasons: QEMU forwards it only later, which touches
// the chunk, or the range is in the compare (a discard), and then a round proves
// nothing. A chunk that differs, and is not touched from before the look until a
// while after it, differs for good.
func (p *verification) judge(ctx context.Context, suspects []*suspect, v *Verified) ([]*suspect, error) {
	for _, s := range suspects {
		s.disturbed = p.l.observe(s.watch)
	}
	defer func() {
		for _, s := range suspects {
			p.l.unwatch(s.watch)
		}
	}()
	var left []*suspect
	for _, s := range suspects {
		differs, err := p.lookClosely(ctx, s.watch)
		if err != nil {
			return nil, err
		}
		if differs {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	select {
	case <-time.After(p.l.r.settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.count(left, v)
	return left, nil
}

// lookClosely says whether a chunk differs at every one of several looks.
func (p *verification) lookClosely(ctx context.Context, chunk *batch) (differs bool, err error) {
	for range looksPerRound {
		runs, err := p.look(ctx, chunk)
		if err != nil || len(runs) == 0 {
			return false, err
		}
	}
	return true, nil
}

// count takes a round's outcome in: what nothing has written to is proved.
func (p *verification) count(left []*suspect, v *Verified) {
	p.l.r.mu.Lock()
	defer p.l.r.mu.Unlock()
	for _, s := range left {
		quiet := len(s.watch.touched) == 0 && p.l.disturbed == s.disturbed && p.l.r.work.finished()
		if !quiet {
			s.differing = 0
		} else if s.differing++; s.differing == roundsToTrust {
			v.Differs = append(v.Differs, Range{p.l.r.opts.Disks[s.watch.disk].Name, s.watch.off, s.watch.length})
		}
	}
}

// look compares a batch once.
func (p *verification) look(ctx context.Context, b *batch) ([]run, error) {
	buf := p.buf[:b.length]
	call := p.l.request(b)
	if err := p.sources.read(ctx, b.disk, buf, b.off); err != nil {
		p.l.forget(call)
		return nil, err
	}
	select {
	case <-call.done:
		return differing(buf, call), nil
	case <-p.l.ctx.Done():
		return nil, context.Cause(p.l.ctx)
	}
}

// observe begins to record what is written to b, and returns the count of
// disturbances so far, -1 if something is being compared now.
func (l *link) observe(b *batch) int {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	b.touched = nil
	l.watched[b] = struct{}{}
	if !l.r.work.finished() {
		return -1
	}
	return l.disturbed
}

func (l *link) unwatch(b *batch) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	delete(l.watched, b)
}
