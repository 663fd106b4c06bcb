package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
)

// ErrPauseEnded says that the guard continued the guest before its checkpoint
// was complete.
var ErrPauseEnded = errors.New("the guard ended the pause")

// ErrNotYet says that the guest cannot be taken just now.
var ErrNotYet = errors.New("the guest cannot be taken yet")

// pauseBound is how long a checkpoint may stop the guest: a dead agent's guest
// stands still no longer. commandBound bounds each step in it.
const (
	pauseBound   = 2 * time.Second
	commandBound = 5 * time.Second
	closeBound   = time.Second
)

// pauseShare keeps the guest stopped for at most a twentieth of the time: a
// longer pause lengthens the interval.
const pauseShare = 20

// retryCheckpoint is the wait after a checkpoint that was left out.
const retryCheckpoint = 100 * time.Millisecond

// recent holds the last pauses; one of them alone says more about the host's
// other work than about the guest.
type recent struct {
	pauses [5]time.Duration
	n      int
}

// add takes a pause in, none if it is zero, and gives the middle one.
func (r *recent) add(pause time.Duration) time.Duration {
	if pause > 0 {
		r.pauses[r.n%len(r.pauses)] = pause
		r.n++
	}
	known := slices.Clone(r.pauses[:min(r.n, len(r.pauses))])
	if len(known) == 0 {
		return 0
	}
	slices.Sort(known)
	return known[(len(known)-1)/2]
}

// Report says what the newest committed checkpoint was and cost.
type Report struct {
	Sequence uint64
	Time     time.Time     // of the pause
	Pause    time.Duration // the guest was stopped
	Bytes    int64         // RAM and device state sent
	Full     bool
	Copied   uint64 // pages copied in the pause
}

// capture is one checkpoint in the making.
type capture struct {
	replica.Outgoing
	asked  time.Time // when the guest was told to stand still
	at     time.Time // when it did
	pause  time.Duration
	memory memory.Stats // of the pause
}

// checkpoints takes one after the other.
func (p *Protector) checkpoints(ctx context.Context, interval func() time.Duration) error {
	synced := false
	p.passes.due = true
	var pauses recent
	for {
		began := time.Now()
		report, err := p.checkpoint(ctx)
		passing := errors.Is(err, replicator.ErrNotInSync) || errors.Is(err, ErrPauseEnded) || errors.Is(err, ErrNotYet)
		if err != nil && !passing {
			return err
		}
		next := began.Add(max(interval(), pauses.add(report.Pause)*pauseShare))
		if passing {
			// Its pages go with the next one. A discard in the guest has a part
			// of a disk compared again, which takes a moment.
			p.log.Info("checkpoint left out", "reason", err)
			next = began.Add(min(interval(), retryCheckpoint))
		} else {
			p.mu.Lock()
			p.last = report
			p.mu.Unlock()
		}
		if !synced && !passing {
			if err := p.config.Synced(ctx); err != nil {
				return err
			}
			synced = true
		}
		if err := p.rest(ctx, next); err != nil {
			return err
		}
	}
}

// rest waits for the next checkpoint's time, or does what else needs the sender. An
// error ends the link.
func (p *Protector) rest(ctx context.Context, next time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-p.failed:
		return err
	case h := <-p.handings:
		err := p.handOver(h.ctx, h.give)
		h.done <- err
		if err == nil {
			return ErrHandedOver
		}
	case v := <-p.voidings:
		err := p.sender.Void(v.ctx, v.reason)
		v.done <- err
		return err
	case <-time.After(time.Until(next)):
	}
	return nil
}

// checkpoint captures one and sends it.
func (p *Protector) checkpoint(ctx context.Context) (Report, error) {
	taken, err := p.capture(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("take a checkpoint: %w", err)
	}
	taken.Outdated = p.config.Detached != nil && p.config.Detached()
	sent, err := p.sender.Send(ctx, taken.Outgoing)
	if err != nil {
		return Report{}, err
	}
	return Report{Sequence: taken.Sequence, Time: taken.at, Pause: taken.pause, Full: sent.Full, Copied: taken.memory.Pages,
		Bytes: int64(sent.Bytes) + int64(sent.Blob)}, nil
}

// capture takes a numbered checkpoint of the guest while nobody else changes
// its run state.
func (p *Protector) capture(ctx context.Context) (taken capture, err error) {
	if taken.Sequence, err = p.sender.Number(); err != nil {
		return taken, err
	}
	passes, first, err := p.lookAhead(ctx)
	if err != nil {
		return taken, err
	}
	defer p.config.Turns.take(ctx)()
	err = p.config.Machine.Exclusive(ctx, func(ctx context.Context) (err error) {
		taken, err = p.captureStopped(ctx, taken)
		return err
	})
	if err != nil {
		p.finder.Doubt() // the guard may have continued the guest
		return taken, err
	}
	p.passes.done(passes, first, taken.memory.Pages)
	return taken, nil
}

// captureStopped stops the guest, takes RAM, device state and disk marker, and
// continues it. The guest is continued whatever fails.
func (p *Protector) captureStopped(ctx context.Context, taken capture) (out capture, err error) {
	running, err := p.stopGuest(ctx, &taken, pauseBound)
	defer func() {
		ended, endErr := p.goOn(ctx, taken.Sequence, running)
		out.pause = time.Since(taken.asked) // QEMU stops the processors first, then flushes the disks
		if err == nil && endErr == nil && ended {
			endErr = ErrPauseEnded
		}
		err = errors.Join(err, endErr)
	}()
	if err != nil {
		return taken, err
	}
	err = p.take(ctx, &taken)
	return taken, err
}

// stopGuest stops a running guest for bound at most; one that its user paused
// stays as it is. running says whether it is to be continued, also after an
// error.
func (p *Protector) stopGuest(ctx context.Context, taken *capture, bound time.Duration) (running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandBound)
	defer cancel()
	m := p.config.Machine
	var status struct{ Status string }
	if err := m.Execute(ctx, "query-status", nil, &status); err != nil {
		return false, err
	}
	taken.RunState = status.Status
	running = status.Status == "running"
	if !running && status.Status != "paused" {
		return false, fmt.Errorf("the guest is %s", status.Status)
	}
	taken.asked = time.Now()
	// A guest that its user paused is not to be continued by the guard either.
	if running {
		if err := m.BeginPause(ctx, taken.Sequence, bound); err != nil {
			p.neverBegun(ctx, taken.Sequence)
			return false, err
		}
		taken.asked = time.Now()
		if err := m.Execute(ctx, "stop", nil, nil); err != nil {
			return true, err
		}
	}
	taken.at = time.Now()
	taken.Time = taken.at.UnixNano()
	return running, nil
}

// neverBegun closes a pause that could not be begun as far as is known here. If only
// the answer did not come in time, it is open all the same: no other could be begun
// until this agent ends.
func (p *Protector) neverBegun(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	if _, err := p.config.Machine.EndPause(ctx, id); err != nil {
		p.log.Debug("a pause that was not begun is not closed", "pause", id, "reason", err) // it was refused, or the guard gets the word late
	}
}

// take does what needs the guest stopped. Devices and memory are taken at the
// same time: saving a device writes no guest memory, for QEMU's own migration
// has sent all of the memory by then.
func (p *Protector) take(ctx context.Context, taken *capture) (err error) {
	ctx, cancel := context.WithTimeout(ctx, commandBound)
	defer cancel()
	devices := make(chan error, 1)
	go func() {
		var err error
		if taken.Blob, err = p.takeDevices(ctx); err != nil {
			cancel() // the memory is of no use then
		}
		devices <- err
	}()
	taken.memory, err = p.takeMemory(ctx)
	if failed := <-devices; failed != nil {
		return failed
	}
	if err != nil || p.replicator == nil {
		return err
	}
	return p.replicator.Mark(ctx, taken.Sequence)
}

// takeMemory makes the shadow equal to the guest's memory, and its screen's.
func (p *Protector) takeMemory(ctx context.Context) (memory.Stats, error) {
	if p.config.Screen != nil {
		if err := p.config.Screen(ctx); err != nil {
			return memory.Stats{}, err
		}
	}
	return p.finder.Stopped(ctx)
}

// takeDevices saves the devices' state if every mirror carries the guest's writes.
func (p *Protector) takeDevices(ctx context.Context) ([]byte, error) {
	if p.replicator != nil {
		if err := p.config.Mirror.Check(ctx); err != nil {
			return nil, err
		}
	}
	return p.config.Machine.SaveDevices(ctx)
}

// goOn continues the guest if it ran, and tells the guard. It works although
// ctx may have ended: a guest must not stand still because its link was lost.
func (p *Protector) goOn(ctx context.Context, id uint64, running bool) (ended bool, err error) {
	if !running {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandBound)
	defer cancel()
	m := p.config.Machine
	err = m.Execute(ctx, "cont", nil, nil)
	ended, endErr := m.EndPause(ctx, id)
	return ended, errors.Join(err, endErr)
}
