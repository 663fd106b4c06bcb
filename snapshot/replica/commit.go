package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"vmctl/snapshot/memory"
)

// before orders checkpoints: by epoch, then by sequence.
func (b Begin) before(epoch, sequence uint64) bool {
	return b.Epoch < epoch || (b.Epoch == epoch && b.Sequence < sequence)
}

// admit tells whether a checkpoint may be begun or committed now. The caller
// holds the commit lock.
func (r *Replica) admit(b Begin) error {
	c, v := r.rec.Commit, r.rec.Void
	switch {
	case r.taken:
		return ErrTaken
	case r.broken != nil:
		return fmt.Errorf("an earlier commit failed, the replica has to be opened again: %w", r.broken)
	case b.Epoch == 0 || b.Sequence == 0 || (b.Base == 0) != (b.Root == b.Sequence) || b.Base >= b.Sequence:
		return fmt.Errorf("checkpoint %d/%d with base %d and root %d: %w", b.Epoch, b.Sequence, b.Base, b.Root, ErrProtocol)
	case b.Epoch < r.floor.Load():
		return fmt.Errorf("epoch %d, the replica is at %d: %w", b.Epoch, r.floor.Load(), ErrStale)
	case v != nil && !(Begin{Epoch: v.Epoch, Sequence: v.Sequence}).before(b.Epoch, b.Sequence):
		return fmt.Errorf("all up to %d/%d: %w", v.Epoch, v.Sequence, ErrVoid)
	case c != nil && !c.Begin.before(b.Epoch, b.Sequence):
		return fmt.Errorf("checkpoint %d/%d after %d/%d: %w", b.Epoch, b.Sequence, c.Begin.Epoch, c.Begin.Sequence, ErrUsed)
	case b.RAMSize <= 0 || b.RAMSize%memory.PageSize != 0 || (r.cfg.MaxRAM != nil && b.RAMSize > r.cfg.MaxRAM()):
		return fmt.Errorf("guest of %d bytes of RAM: %w", b.RAMSize, memory.ErrSize)
	case len(b.RunState) > maxText || len(b.Spec) > maxText:
		return fmt.Errorf("run state of %d, spec hash of %d bytes: %w", len(b.RunState), len(b.Spec), ErrProtocol)
	case b.Base == 0:
		return nil
	case c == nil || !r.memory:
		return fmt.Errorf("there is no RAM to build on: %w", ErrNeedFull)
	case c.Begin.Epoch != b.Epoch || c.Begin.Root != b.Root || b.Base < b.Root || b.Base > c.Begin.Sequence ||
		c.Begin.RAMSize != b.RAMSize || !bytes.Equal(c.Begin.Spec, b.Spec):
		return fmt.Errorf("base %d/%d of root %d, the replica is at %d/%d of root %d: %w",
			b.Epoch, b.Base, b.Root, c.Begin.Epoch, c.Begin.Sequence, c.Begin.Root, ErrNeedFull)
	}
	return nil
}

// stage starts a checkpoint.
func (r *Replica) stage(ctx context.Context, b Begin) (*staged, error) {
	if err := r.acquire(ctx); err != nil {
		return nil, err
	}
	defer r.release()
	if err := r.mend(); err != nil {
		return nil, err
	}
	if err := r.admit(b); err != nil {
		return nil, err
	}
	if !r.seen.before(b.Epoch, b.Sequence) {
		return nil, fmt.Errorf("checkpoint %d/%d was begun before: %w", b.Epoch, b.Sequence, ErrUsed)
	}
	r.seen = b
	if err := r.makeRoom(b); err != nil {
		return nil, err
	}
	r.foldAbandoned(b)
	decoder, err := memory.NewDecoder(uint64(b.RAMSize) / memory.PageSize)
	if err != nil {
		return nil, err
	}
	s := &staged{files: r.files, begin: b, loads: r.loads, decoder: decoder, digest: memory.NewDigest()}
	if b.Base == 0 {
		s.path = r.ramPath(r.fileName(b, "ram"))
		s.ram, err = r.files.createRAM(s.path, b.RAMSize)
	} else {
		s.path = r.ramPath(r.fileName(b, "delta"))
		if s.ram, err = r.files.openRAM(r.ramPath(r.rec.Commit.RAM), b.RAMSize); err == nil {
			if s.delta, err = r.files.create(s.path); err != nil {
				err = errors.Join(err, s.ram.Close())
			}
		}
	}
	if err != nil {
		decoder.Close()
		return nil, fmt.Errorf("stage checkpoint %d/%d: %w", b.Epoch, b.Sequence, err)
	}
	return s, nil
}

// foldAbandoned bounds the disks' undo logs when checkpoint after checkpoint is
// begun and none committed: the marks of those between the committed one and b
// lead nowhere, for only b may be committed now. The caller holds the commit
// lock.
func (r *Replica) foldAbandoned(b Begin) {
	c := r.rec.Commit
	if c == nil || c.Begin.Epoch != b.Epoch {
		return
	}
	if err := r.cfg.Disks.Fold(c.Begin.Sequence, b.Sequence); err != nil {
		r.cfg.Log.Warn("cannot shorten the disks' undo log", "guest", r.cfg.Name, "error", err)
	}
}

// stillGood tells whether a staged checkpoint may be committed now. The caller
// holds the commit lock.
func (r *Replica) stillGood(s *staged) error {
	if err := r.admit(s.begin); err != nil {
		return err
	}
	if later := r.seen; s.begin.before(later.Epoch, later.Sequence) { // its mark may have been folded away
		return fmt.Errorf("checkpoint %d/%d, %d/%d was begun since: %w", s.begin.Epoch, s.begin.Sequence, later.Epoch, later.Sequence, ErrUsed)
	}
	if s.loads != r.loads {
		return fmt.Errorf("what was staged of checkpoint %d/%d was swept away after a failure: %w", s.begin.Epoch, s.begin.Sequence, ErrFailed)
	}
	return nil
}

// mayCommit is stillGood for a caller without the lock: a forecast.
func (r *Replica) mayCommit(ctx context.Context, s *staged) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	return r.stillGood(s)
}

// commit makes a staged checkpoint the replica's.
func (r *Replica) commit(ctx context.Context, s *staged, end *End) error {
	if err := s.verify(end); err != nil {
		return err
	}
	if err := r.mayCommit(ctx, s); err != nil { // do not wait for what cannot be
		return err
	}
	wait, cancel := context.WithTimeout(ctx, r.cfg.MarkTimeout)
	defer cancel()
	if err := r.cfg.Disks.WaitMark(wait, s.begin.Sequence); err != nil {
		return fmt.Errorf("wait for mark %d: %w: %w", s.begin.Sequence, ErrMark, err)
	}
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	if err := r.stillGood(s); err != nil {
		return err
	}
	// Under the lock: TakeOver closes the disks under it.
	if err := r.cfg.Disks.Sync(); err != nil {
		return fmt.Errorf("flush disks before the commit: %w", err)
	}
	next := *r.rec
	next.Floor, next.Rolling = max(next.Floor, s.begin.Epoch), 0
	next.Commit = &commit{Begin: s.begin, End: *end, BootID: r.cfg.BootID, BlobData: s.blob}
	if s.delta == nil {
		next.Commit.RAM = r.fileName(s.begin, "ram")
	} else {
		next.Commit.RAM, next.Commit.Delta = r.rec.Commit.RAM, r.fileName(s.begin, "delta")
	}
	next.Before = r.keepBefore(s)
	if err := r.files.writeRecord(r.cfg.Dir, &next); err != nil {
		if errors.Is(err, errUnsure) {
			r.broken, s.kept = err, true
		} else {
			r.dropBefore(&next)
		}
		return err
	}
	old := r.rec
	r.rec, s.kept = &next, true
	r.raise(s.begin.Epoch)
	if err := r.settle(s, old); err != nil {
		r.broken = err
		return err
	}
	r.cfg.Log.Debug("checkpoint committed", "guest", r.cfg.Name, "epoch", s.begin.Epoch, "sequence", s.begin.Sequence,
		"pages", s.pages, "bytes", s.bytes)
	return nil
}

// settle does what follows the commit point: RAM becomes the checkpoint's, and
// what only the one before needed goes.
func (r *Replica) settle(s *staged, old *record) error {
	if s.delta != nil {
		if err := applyDelta(s.delta, s.decoder, s.ram); err != nil {
			return fmt.Errorf("apply checkpoint %d/%d: %w", s.begin.Epoch, s.begin.Sequence, err)
		}
		if err := r.files.remove(s.path); err != nil {
			return fmt.Errorf("remove applied delta: %w", err)
		}
	} else if old.Commit != nil {
		if err := r.files.remove(r.ramPath(old.Commit.RAM)); err != nil {
			return fmt.Errorf("remove RAM of the checkpoint before: %w", err)
		}
	}
	r.memory = true
	r.dropBefore(old)
	if err := r.cfg.Disks.Drop(r.rec.earliest()); err != nil {
		// The undo log is longer than it has to be; the next commit tries again.
		r.cfg.Log.Warn("cannot shorten the disks' undo log", "guest", r.cfg.Name, "error", err)
	}
	return nil
}
