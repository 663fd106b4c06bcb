package replica

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmctl/snapshot/memory"
)

// ErrNoRoom means that there is no memory for an image of the guest's.
var ErrNoRoom = errors.New("no room for an image of the guest's memory")

// A full image comes in beside the one that is here, so a guest takes its memory
// twice until it is committed. Where there is no room for that, the older one is
// given up, if its owner says that it does not count: otherwise the replica could
// not become complete ever again.

// room is how many bytes a full image may take if what is here is given up; 0: it
// is not known. The caller holds the commit lock.
func (r *Replica) room() int64 {
	if r.cfg.Room == nil {
		return 0
	}
	room := r.cfg.Room()
	if r.memory {
		if held, err := memory.Allocated(r.ramPath(r.rec.Commit.RAM)); err == nil {
			room += held
		}
	}
	return max(1, room)
}

// makeRoom is for the memory of a checkpoint that is begun. Room of less than nothing
// means that this host has to have what is here: its owner hears it first, and when
// the replica does not count any more, it goes. The caller holds the commit lock.
func (r *Replica) makeRoom(b Begin) error {
	if r.cfg.Room == nil || b.Base == 0 && b.Needs <= 0 {
		return nil
	}
	free := r.cfg.Room()
	if b.Base != 0 && free >= 0 || b.Base == 0 && b.Needs <= free {
		return nil
	}
	all := r.room()
	fits := b.Base == 0 && b.Needs <= all && free >= 0
	if b.Outdated && r.memory && (fits || free < 0) {
		r.giveUp(free < 0)
	}
	if fits && !r.memory {
		return nil
	}
	if b.Base != 0 {
		return fmt.Errorf("%w: this host is short of it", ErrNoRoom)
	}
	return fmt.Errorf("%w: it takes %d MiB, %d MiB may be taken", ErrNoRoom, b.Needs>>20, max(0, free)>>20)
}

// ranOut is told why a checkpoint failed: if memory ended in the middle of a full
// image, there is more for the next attempt.
func (r *Replica) ranOut(ctx context.Context, b Begin, why error) {
	if b.Base != 0 || !b.Outdated || !errors.Is(why, unix.ENOSPC) {
		return
	}
	if err := r.acquire(ctx); err != nil {
		return
	}
	defer r.release()
	if r.memory && r.broken == nil && !r.taken && r.rec.Commit.Begin.before(b.Epoch, b.Sequence) && b.Epoch >= r.floor.Load() {
		r.giveUp(false)
	}
}

// giveUp lets go of the memory of the committed checkpoint. The record stays, as
// after a boot of this host: the guest could be booted from its disks. short: not for
// another image, but because this host has too little memory.
func (r *Replica) giveUp(short bool) {
	c := r.rec.Commit
	r.memory = false
	r.dropBefore(r.rec)
	if err := r.files.remove(r.ramPath(c.RAM)); err != nil {
		r.cfg.Log.Warn("cannot remove the RAM of a checkpoint that is given up", "guest", r.cfg.Name, "error", err)
	}
	text := fmt.Sprintf("the image of checkpoint %d/%d, which did not count any more, is given up: ", c.Begin.Epoch, c.Begin.Sequence)
	if short {
		text += "this host is short of memory"
	} else {
		text += "there is no room for the next one beside it"
	}
	r.cfg.Log.Warn(text, "guest", r.cfg.Name)
	if r.cfg.Noted != nil {
		r.cfg.Noted("checkpoint-given-up", text)
	}
}
