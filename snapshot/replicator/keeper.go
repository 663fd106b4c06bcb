package replicator

import (
	"context"
	"time"
)

// progressEvery is how often Changed is told about a compare.
const progressEvery = 250 * time.Millisecond

// keep runs the callbacks, one at a time and in order: Degrade never overtakes
// an InSync under way.
func (r *Replicator) keep(ctx context.Context) {
	const first, most = 50 * time.Millisecond, time.Second
	pause := first // after a failed callback
	var told State
	for ctx.Err() == nil {
		told = r.tell(told)
		call, wait, changed := r.due(time.Now())
		if call == nil {
			pause = first
			r.sleep(ctx, wait)
			continue
		}
		if err := call(ctx); err == nil {
			pause = first
			continue
		}
		// Not the kick: it may be rung by every guest write.
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(pause):
		}
		pause = min(2*pause, most)
	}
}

func (r *Replicator) sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.kick:
	case <-timer.C:
	}
}

// tell reports the state if it differs from what was told.
func (r *Replicator) tell(told State) State {
	now := r.State()
	now.Waiting = 0 // changes with every write
	if now != told && r.opts.Changed != nil {
		r.opts.Changed(now)
	}
	return now
}

// due is the callback to run now, or how long to wait for one; changed is closed
// when the answer may be another.
func (r *Replicator) due(now time.Time) (call func(context.Context) error, wait time.Duration, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.changed
	switch l := r.link; {
	case r.closed:
		return nil, time.Hour, changed
	case l != nil && l.distrusted && l.ctx.Err() == nil:
		return func(ctx context.Context) error { return r.condemn(ctx, l) }, 0, changed
	case l != nil && r.work.finished() && !l.ready:
		round := l.round
		return func(context.Context) error { return r.announce(l, round) }, 0, changed
	case l != nil && !r.work.finished():
		return nil, progressEvery, changed
	case l == nil && !r.outdated && r.stalled.count > 0:
		if wait := r.opts.AckDeadline - now.Sub(r.stalled.since); wait > 0 {
			return nil, wait, changed
		}
		return r.degrade, 0, changed
	}
	return nil, time.Hour, changed
}

// announce calls InSync for a link whose compare is finished, once the peer keeps
// nothing older any more.
func (r *Replicator) announce(l *link, round int) error {
	ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
	defer cancel()
	if err := l.settleWhole(ctx); err != nil {
		return err
	}
	if !r.mayCount(l, round) {
		return nil
	}
	if err := r.opts.InSync(ctx); err != nil {
		r.log.Warn("replica is in sync, but that could not be recorded", "error", err)
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == l && l.round == round {
		l.ready = true
		r.log.Info("replica is in sync")
	}
	return nil
}

// mayCount takes the link's outdated back, if nothing was put into the work since:
// from here on the replica may count, whatever becomes of InSync, and a lost link
// needs a Degrade again.
func (r *Replicator) mayCount(l *link, round int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != l || l.round != round || !r.work.finished() || l.distrusted {
		return false
	}
	r.outdated, r.doubt = false, false
	return true
}

// degrade calls Degrade and lets the guest's writes go if it succeeded.
func (r *Replicator) degrade(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.DegradeTimeout)
	defer cancel()
	began := time.Now()
	if err := r.opts.Degrade(ctx); err != nil {
		r.log.Error("peer is lost and its replica could not be outdated; guest writes wait", "error", err)
		return err
	}
	r.log.Warn("replica is outdated; the guest goes on without it", "took", time.Since(began))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outdated = true
	r.broadcast()
	return nil
}

// NoteOutdated says that the replica is durably outdated, as after a Degrade; it does
// nothing with a link, whose loss needs one of its own.
func (r *Replicator) NoteOutdated() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == nil && !r.outdated {
		r.outdated = true
		r.broadcast()
	}
}
