package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"vmctl/snapshot/memory"
)

// Checkpoint is what a guest is resumed from.
type Checkpoint struct {
	Epoch     uint64   // the new owner's
	From      uint64   // epoch in which the checkpoint was made
	Sequence  uint64   // of the checkpoint
	RAMPath   string   // RAM file, not to be written before Activate
	RAMSize   int64    // bytes
	Blob      []byte   // device state
	DiskPaths []string // images, rolled back and closed by Activate
	RunState  string   // QEMU's word: a guest paused by its user stays paused
	Time      int64    // wall clock of the pause, ns since 1970
	Spec      []byte   // hash of the spec that Blob belongs to
}

// Fence refuses all epochs below epoch from now on, durably. A commit that had
// begun to write its record ends first; a checkpoint still coming in is lost.
func (r *Replica) Fence(ctx context.Context, epoch uint64) error {
	if err := r.fence(ctx, epoch); err != nil {
		return fmt.Errorf("fence the replica of %s at epoch %d: %w", r.cfg.Name, epoch, err)
	}
	r.release()
	return nil
}

// fence leaves the commit lock with the caller if it succeeds.
func (r *Replica) fence(ctx context.Context, epoch uint64) error {
	if floor := r.floor.Load(); epoch < floor {
		return fmt.Errorf("the replica is at epoch %d: %w", floor, ErrStale)
	}
	r.raise(epoch)
	if err := r.acquire(ctx); err != nil {
		return err
	}
	err := r.fenceLocked(epoch)
	if err != nil {
		r.release()
	}
	return err
}

func (r *Replica) fenceLocked(epoch uint64) error {
	if floor := r.floor.Load(); epoch < floor {
		return fmt.Errorf("the replica is at epoch %d: %w", floor, ErrStale)
	}
	if err := r.mend(); err != nil {
		return err
	}
	next := *r.rec
	next.Floor = epoch
	return r.store(&next)
}

// store makes next the record, durably. The caller holds the commit lock.
func (r *Replica) store(next *record) error {
	if r.rec.Floor >= next.Floor && r.rec.Rolling == next.Rolling {
		return nil
	}
	if err := r.files.writeRecord(r.cfg.Dir, next); err != nil {
		if errors.Is(err, errUnsure) {
			r.broken = err
		}
		return err
	}
	r.rec = next
	return nil
}

// TakeOver ends the replica's life as one: it fences older epochs and returns
// what to resume. The disks stay as the last write left them until Activate: if
// the checkpoint cannot be loaded, they are the newest to boot from. newEpoch
// must be higher than the checkpoint's. After a failure or a crash it may be
// called again, with the same epoch or a higher one, until Activate. On ErrVoid,
// ErrNoCheckpoint and ErrMemoryAbsent the old epochs are fenced all the same.
func (r *Replica) TakeOver(ctx context.Context, newEpoch uint64) (Checkpoint, error) {
	if err := r.fence(ctx, newEpoch); err != nil {
		return Checkpoint{}, fmt.Errorf("take over %s at epoch %d: %w", r.cfg.Name, newEpoch, err)
	}
	defer r.release()
	c, err := r.resumable(newEpoch)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("take over %s at epoch %d: %w", r.cfg.Name, newEpoch, err)
	}
	r.taken = true
	r.cfg.Log.Info("replica taken over", "guest", r.cfg.Name, "epoch", newEpoch, "from", c.Begin.Epoch, "sequence", c.Begin.Sequence)
	return Checkpoint{Epoch: newEpoch, From: c.Begin.Epoch, Sequence: c.Begin.Sequence,
		RAMPath: r.ramPath(c.RAM), RAMSize: c.Begin.RAMSize, Blob: c.BlobData, DiskPaths: r.cfg.DiskPaths,
		RunState: c.Begin.RunState, Time: c.Begin.Time, Spec: c.Begin.Spec}, nil
}

// resumable gives the checkpoint if everything of it is here. The record's
// checksum covers the device state.
func (r *Replica) resumable(newEpoch uint64) (*commit, error) {
	c := r.rec.Commit
	switch {
	case c == nil && r.rec.Void != nil:
		return nil, fmt.Errorf("%w: %s", ErrVoid, r.rec.Void.Reason)
	case c == nil:
		return nil, ErrNoCheckpoint
	case newEpoch <= c.Begin.Epoch:
		return nil, fmt.Errorf("the checkpoint is of epoch %d itself: %w", c.Begin.Epoch, ErrStale)
	case !r.memory:
		return nil, ErrMemoryAbsent
	}
	ram, err := memory.OpenFile(r.ramPath(c.RAM), c.Begin.RAMSize)
	if err != nil {
		r.memory = false
		return nil, fmt.Errorf("%w: %w", ErrMemoryAbsent, err)
	}
	return c, ram.Close()
}

// Activate is to be called after TakeOver, right before the guest runs: it rolls
// the disks back to the checkpoint and lets go of them, so whoever has them open
// must not have read them yet, and from then on its RAM is no longer the
// checkpoint's. It gives the RAM file the
// name of a running guest's, RAMDir/Name.ram, which it returns; a QEMU that
// has the file open does not notice. No later TakeOver will offer it.
func (r *Replica) Activate(ctx context.Context) (string, error) {
	if err := r.acquire(ctx); err != nil {
		return "", fmt.Errorf("activate %s: %w", r.cfg.Name, err)
	}
	defer r.release()
	if !r.taken || !r.memory {
		return "", fmt.Errorf("activate %s: it was not taken over: %w", r.cfg.Name, ErrNoCheckpoint)
	}
	if err := r.rollBack(); err != nil {
		return "", fmt.Errorf("activate %s: %w", r.cfg.Name, err)
	}
	path := r.ramPath(r.cfg.Name + ".ram")
	if err := r.files.rename(r.ramPath(r.rec.Commit.RAM), path); err != nil {
		return "", fmt.Errorf("activate %s: %w", r.cfg.Name, err)
	}
	r.memory = false
	r.dropBefore(r.rec)
	return path, nil
}

// rollBack makes the disks the checkpoint's and lets go of them.
func (r *Replica) rollBack() error {
	if r.rolled {
		return nil
	}
	sequence := r.rec.Commit.Begin.Sequence
	if err := r.rollTo(sequence); err != nil {
		return fmt.Errorf("roll disks back to %d: %w", sequence, err)
	}
	if err := r.cfg.Disks.Close(); err != nil {
		return fmt.Errorf("let go of the disks: %w", err)
	}
	r.rolled = true
	return nil
}

// rollTo brings all disks back to a checkpoint. A power cut in it must not leave
// some of the disks, or parts of one, as they were: the undo logs are durable
// first, then the word that they are to be undone, and only then does the first
// disk change. The word is taken back before anybody runs the guest: what it
// writes is never rolled back.
func (r *Replica) rollTo(sequence uint64) error {
	say := func(rolling uint64) error {
		next := *r.rec
		next.Rolling = rolling
		return r.store(&next)
	}
	if err := r.cfg.Disks.Rollback(sequence, func() error { return say(sequence) }); err != nil {
		return err
	}
	return say(0)
}

// rollOn finishes a rollback that was cut off.
func (r *Replica) rollOn() error {
	if r.rec.Rolling == 0 || r.rolled {
		return nil
	}
	if err := r.rollTo(r.rec.Rolling); err != nil {
		return fmt.Errorf("finish the rollback of the disks to %d: %w", r.rec.Rolling, err)
	}
	return nil
}

// Void makes every checkpoint up to (epoch, sequence) unusable, durably: the
// guest was ended on purpose and must not come back. A newer checkpoint, of a
// guest started since, stays.
func (r *Replica) Void(ctx context.Context, epoch, sequence uint64, reason string) error {
	if err := r.acquire(ctx); err != nil {
		return fmt.Errorf("void checkpoints of %s: %w", r.cfg.Name, err)
	}
	defer r.release()
	if err := r.void(epoch, sequence, reason); err != nil {
		return fmt.Errorf("void checkpoints of %s up to %d/%d: %w", r.cfg.Name, epoch, sequence, err)
	}
	return nil
}

func (r *Replica) void(epoch, sequence uint64, reason string) error {
	if r.taken {
		return ErrTaken
	}
	if floor := r.floor.Load(); epoch < floor {
		return fmt.Errorf("the replica is at epoch %d: %w", floor, ErrStale)
	}
	if err := r.mend(); err != nil {
		return err
	}
	next := *r.rec
	if v := next.Void; v == nil || (Begin{Epoch: v.Epoch, Sequence: v.Sequence}).before(epoch, sequence) {
		next.Void = &Void{Epoch: epoch, Sequence: sequence, Reason: reason[:min(len(reason), maxText)]}
	}
	if c := next.Commit; c != nil && !(Begin{Epoch: epoch, Sequence: sequence}).before(c.Begin.Epoch, c.Begin.Sequence) {
		next.Commit, next.Before = nil, nil
	}
	if err := r.files.writeRecord(r.cfg.Dir, &next); err != nil {
		if errors.Is(err, errUnsure) {
			r.broken = err
		}
		return err
	}
	old := r.rec
	r.rec = &next
	if old.Commit == nil || next.Commit != nil {
		return nil
	}
	r.memory = false
	r.dropBefore(old)
	if err := r.files.remove(r.ramPath(old.Commit.RAM)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.cfg.Log.Warn("cannot remove the RAM of a void checkpoint", "guest", r.cfg.Name, "error", err)
	}
	return nil
}

// Remove deletes the replica of a guest that is gone, for good: its record and
// its RAM files, not its disks. The replica must be closed.
func Remove(cfg Config) error {
	flock, err := lockDir(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove replica of %s: %w", cfg.Name, err)
	}
	defer flock.Close()
	r := &Replica{cfg: cfg}
	if err := errors.Join(r.removeFiles(), os.RemoveAll(cfg.Dir)); err != nil {
		return fmt.Errorf("remove replica of %s: %w", cfg.Name, err)
	}
	return nil
}
