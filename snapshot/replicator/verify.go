package replicator

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrDiffers ends a link whose replica differs although it counted.
	ErrDiffers = errors.New("replica differs from the disk")
	// ErrBusy refuses a second Verify at the same time.
	ErrBusy = errors.New("a verification is under way")
)

// mostRanges bounds the ranges that are remembered for people.
const mostRanges = 256

// Range is a part of a disk, in bytes.
type Range struct {
	Disk           string
	Offset, Length int64
}

// Verified is how far a Verify has come.
type Verified struct {
	Compared, Total int64   // bytes
	Differs         []Range // proved; Verify ends with the first ones
	Unsettled       int64   // bytes of chunks that were written too often to be judged
}

// Differed is how many bytes Differs has.
func (v Verified) Differed() (sum int64) {
	for _, r := range v.Differs {
		sum += r.Length
	}
	return sum
}

// Verify compares the disks with a replica that is in sync, without holding up
// writes, markers or checkpoints. tell hears how far it is, after every MiB,
// and of a difference before anything is done about it.
//
// A proved difference ends it: nothing said by this replica is trusted any more.
// The replica is outdated durably first, then the link ends with ErrDiffers, and
// the next one compares, and repairs, everything. Verify returns when the link
// has ended.
//
// ErrNotInSync when there is nothing to verify, now or any more.
func (r *Replicator) Verify(ctx context.Context, tell func(Verified)) (Verified, error) {
	v := Verified{Total: r.total}
	l, err := r.beginVerify()
	if err != nil {
		return v, err
	}
	defer r.endVerify(l)
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	pass := &verification{l: l, sources: newSources(r.opts.Disks), buf: make([]byte, batchSize)}
	defer pass.sources.close()
	for disk, d := range r.opts.Disks {
		for off := int64(0); off < d.Size; off += batchSize {
			b := &batch{disk: disk, off: off, length: min(batchSize, d.Size-off)}
			if err := pass.batch(ctx, b, &v); err != nil {
				return v, pass.why(ctx, err)
			}
			if len(v.Differs) > 0 {
				tell(v)
				return v, pass.distrust(caller)
			}
			v.Compared += b.length
			tell(v)
		}
	}
	return v, nil
}

func (r *Replicator) beginVerify() (*link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.link
	switch {
	case l == nil || l.phase() != InSync:
		return nil, fmt.Errorf("verify the replica: %s: %w", r.state().Phase, ErrNotInSync)
	case l.watched != nil:
		return nil, fmt.Errorf("verify the replica: %w", ErrBusy)
	}
	l.watched = map[*batch]struct{}{}
	return l, nil
}

func (r *Replicator) endVerify(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.watched = nil
}

// verification is one Verify.
type verification struct {
	l       *link
	sources *sources
	buf     []byte
}

// why says what ended a verification early.
func (p *verification) why(ctx context.Context, err error) error {
	if p.l.ctx.Err() != nil {
		return fmt.Errorf("verify the replica: the link was lost: %w: %w", context.Cause(p.l.ctx), ErrNotInSync)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("verify the replica: %w", err)
}

// distrust has the keeper outdate the replica and end the link.
func (p *verification) distrust(ctx context.Context) error {
	r := p.l.r
	r.mu.Lock()
	p.l.distrusted = true // no matter if it is lost already: the next link compares everything
	r.doubt = true
	p.l.beginHold(false)
	err := r.work.addAll()
	r.mu.Unlock()
	if err != nil {
		r.log.Error("the replica differs and is repaired, but not if this agent is killed now", "error", err)
	}
	r.wakeKeeper()
	select {
	case <-p.l.over:
		return nil
	case <-ctx.Done(): // the keeper goes on
		return ctx.Err()
	}
}

// condemn outdates the replica and ends its link.
func (r *Replicator) condemn(ctx context.Context, l *link) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.DegradeTimeout)
	defer cancel()
	if err := r.opts.Degrade(ctx); err != nil {
		r.log.Error("the replica differs and could not be outdated yet; no checkpoint is taken", "error", err)
		return err
	}
	r.mu.Lock()
	r.outdated = true
	r.broadcast()
	r.mu.Unlock()
	l.lose(ErrDiffers)
	return nil
}

// Differences are the parts that the present link's compare has sent so far, the
// first 256.
func (r *Replicator) Differences() []Range {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == nil {
		return nil
	}
	return append([]Range(nil), r.link.differed...)
}
