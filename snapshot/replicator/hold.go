package replicator

import (
	"errors"
	"fmt"
	"time"

	"vmctl/snapshot/undo"
)

// errHoldLimit: holding the older content takes more than it may.
var errHoldLimit = errors.New("keeping it took more space than it may")

func (r *Receiver) isHolding() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holding
}

// Recover makes what the disks hold what the Identity says, after a start: a crash
// may have come between. To be called before Serve.
func (r *Receiver) Recover() error {
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.opts.Identity.Content().Held {
		return r.release()
	}
	for name, disk := range r.opts.Disks {
		if err := disk.CheckHold(); err != nil {
			r.note("the older content that the replica of %s kept cannot be restored (disk %s: %v): until the resync is complete, its disks are of no moment", r.opts.Guest, name, err)
			return r.letGo()
		}
	}
	r.holding = true
	return nil
}

// hold does what a Hold asks for. The disks are written by the caller alone.
func (r *Receiver) hold(generation uint64, keep bool) error {
	if keep {
		if err := r.Sync(); err != nil { // most of it; below, writes of a newer stream would wait
			return err
		}
	}
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != generation {
		return ErrStopped
	}
	r.turn++
	content := r.opts.Identity.Content()
	switch {
	case r.holding: // the older content is the one to keep
		return r.opts.Identity.SayHeld(content.Time)
	case !keep || !content.Whole:
		return r.opts.Identity.SayTorn()
	}
	if err := r.holdAll(); err != nil {
		r.note("the content that the replica of %s has is not kept: until the resync is complete, its disks are of no moment: %v", r.opts.Guest, err)
		return r.letGo()
	}
	r.log.Info("replica keeps what it has during the resync")
	return nil
}

// holdAll makes all disks hold what they have; r.mu is held.
func (r *Receiver) holdAll() error {
	last, err := r.opts.Identity.lastWhole(r.opts.Disks)
	if err != nil {
		return err
	}
	for name, disk := range r.opts.Disks {
		if err := disk.Hold(); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	if err := r.opts.Identity.SayHeld(last); err != nil {
		return err
	}
	r.holding = true
	return nil
}

// letGo forgets what is held, and that anything is whole; r.turning and r.mu are
// held. It is durable before a disk forgets.
func (r *Receiver) letGo() error {
	if err := r.opts.Identity.SayTorn(); err != nil {
		return err
	}
	r.holding = false
	return r.release()
}

func (r *Receiver) release() (err error) {
	for _, disk := range r.opts.Disks {
		err = errors.Join(err, disk.Release())
	}
	return err
}

// prepare has what a batch will overwrite in the log, durably, or holds nothing
// any more.
func (r *Receiver) prepare(generation uint64, batch []change) error {
	err := r.apply(generation, func() error {
		for _, c := range batch {
			if err := c.disk.Prepare(c.off, c.length); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrStopped) || errors.Is(err, undo.ErrRange) {
		return err
	}
	for _, disk := range disksOf(batch) {
		if err == nil {
			err = disk.SyncHold()
		}
	}
	if err == nil && r.holdBytes() > r.holdLimit() {
		err = errHoldLimit
	}
	if err == nil {
		err = leavesRoom(batch[0].disk)
	}
	if err == nil {
		return nil
	}
	return r.giveUp(generation, err)
}

func (r *Receiver) holdBytes() (sum int64) {
	for _, disk := range r.opts.Disks {
		sum += disk.HoldBytes()
	}
	return sum
}

// leastFree is the part of a file system that holding leaves for others.
const leastFree = 50

func leavesRoom(disk *undo.Disk) error {
	free, all, err := disk.Room()
	if err == nil && free < all/leastFree {
		err = fmt.Errorf("the file system has only %d MiB left", free>>20)
	}
	return err
}

// holdShare is the part of the disks' bytes that holding may take.
const holdShare = 4

func (r *Receiver) holdLimit() int64 {
	if r.opts.HoldLimit > 0 {
		return r.opts.HoldLimit
	}
	var all int64
	for _, disk := range r.opts.Disks {
		all += disk.Size()
	}
	return all / holdShare
}

// giveUp forgets the older content so that the resync can go on.
func (r *Receiver) giveUp(generation uint64, why error) error {
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != generation {
		return ErrStopped
	}
	if !r.holding {
		return nil
	}
	r.note("the replica of %s does not keep its content of %s any more, %d MiB, so until the resync is complete its disks are of no moment: %v",
		r.opts.Guest, r.opts.Identity.Content().Time.UTC().Format(time.RFC3339), r.holdBytes()>>20, why)
	return r.letGo()
}

func (r *Receiver) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.log.Warn(text)
	if r.opts.Noted != nil {
		r.opts.Noted("undo-folded", text)
	}
}

// settleWhole makes durable that the content is whole, if no Hold has come since.
func (r *Receiver) settleWhole(generation, turn uint64) (settled bool, err error) {
	if err := r.Sync(); err != nil {
		return false, err
	}
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	if r.generation != generation || r.turn != turn {
		r.mu.Unlock()
		return false, nil
	}
	err = r.opts.Identity.SayWhole(time.Now())
	if err == nil {
		r.holding = false
	}
	r.mu.Unlock()
	if err != nil {
		return false, err
	}
	return true, r.release()
}

// Restore makes the disks what they hold, if they hold anything, and says of what
// time that is; the zero Time: they stay as they are. To be called after Stop. Cut
// off, it is to be done again: nothing is forgotten before it is durable.
func (r *Receiver) Restore() (of time.Time, err error) {
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.holding {
		return time.Time{}, nil
	}
	of = r.opts.Identity.Content().Time
	for name, disk := range r.opts.Disks { // all of them, or none
		if err := disk.VerifyHold(); errors.Is(err, undo.ErrDamaged) {
			r.note("the older content that the replica of %s kept cannot be restored, its disks stay as they are, of no moment: disk %s: %v", r.opts.Guest, name, err)
			return time.Time{}, r.letGo()
		} else if err != nil {
			return time.Time{}, fmt.Errorf("disk %s: %w", name, err)
		}
	}
	for name, disk := range r.opts.Disks {
		if err := disk.Restore(); err != nil {
			return time.Time{}, fmt.Errorf("disk %s: %w", name, err)
		}
	}
	return of, r.letGo()
}

// LetGo forgets what the disks hold, before something else is made of them.
func (r *Receiver) LetGo() error {
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.holding {
		return nil
	}
	return r.letGo()
}

// Content is what the disks have.
func (r *Receiver) Content() Content {
	c := r.opts.Identity.Content()
	c.Bytes = r.holdBytes()
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Followed = r.stream != nil
	return c
}
