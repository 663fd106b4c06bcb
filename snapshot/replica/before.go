package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"vmctl/snapshot/memory"
)

// A delta is written over the RAM of the checkpoint before. What it overwrites
// is kept as a delta of its own, which leads back: with the record of the
// checkpoint before, and the disks' mark of it, that one can be resumed too. It
// costs as much memory as the pages of the newest checkpoint.

// maxBefore is the part of a guest's RAM that the way back may take: one that is
// longer is not kept, and neither is one over a full image.
const maxBefore = 8

// errNoBefore says why there is no way back.
var errNoBefore = errors.New("too many pages changed")

// keepBefore writes the way back from a staged checkpoint to the committed one.
// The RAM must still be the latter's: the caller holds the commit lock and has
// not reached the commit point. nil if there is none to keep.
func (r *Replica) keepBefore(s *staged) *commit {
	c := r.rec.Commit
	if s.delta == nil || c == nil {
		return nil
	}
	b := *c
	b.Delta = r.fileName(s.begin, "undo")
	if err := r.writeBefore(s, &b); err != nil {
		r.cfg.Log.Info("no way back to the checkpoint before is kept", "guest", r.cfg.Name, "sequence", s.begin.Sequence, "error", err)
		if err := r.files.remove(r.ramPath(b.Delta)); err != nil {
			r.cfg.Log.Warn("cannot remove a way back that was not finished", "guest", r.cfg.Name, "error", err)
		}
		return nil
	}
	return &b
}

func (r *Replica) writeBefore(s *staged, b *commit) (err error) {
	if (s.pages+s.zeros)*memory.PageSize > uint64(b.Begin.RAMSize)/maxBefore {
		return errNoBefore
	}
	file, err := r.files.create(r.ramPath(b.Delta))
	if err != nil {
		return err
	}
	sum, err := memory.EncodeRuns(s.ram.file, s.runs, func(chunk memory.Chunk) error {
		s.buf = framed(s.buf[:0], chunk)
		return r.files.write(file, s.buf)
	})
	b.End.Chunks, b.End.Pages, b.End.Zeros, b.End.Checksum = sum.Chunks, sum.Pages, sum.Zeros, sum.Checksum
	return errors.Join(err, file.Close())
}

// dropBefore removes the way back from a checkpoint, which nothing names any more.
func (r *Replica) dropBefore(old *record) {
	if old.Before == nil {
		return
	}
	if err := r.files.remove(r.ramPath(old.Before.Delta)); err != nil {
		r.cfg.Log.Warn("cannot remove the way back to an earlier checkpoint", "guest", r.cfg.Name, "error", err)
	}
}

// StepBack makes the checkpoint before the last one the replica's, for one that
// was taken over and could not be loaded; TakeOver gives it then. There is no way
// forth. ErrNoCheckpoint if there is none before; then nothing was changed.
func (r *Replica) StepBack(ctx context.Context) error {
	if err := r.acquire(ctx); err != nil {
		return fmt.Errorf("go back to the checkpoint before of %s: %w", r.cfg.Name, err)
	}
	defer r.release()
	if err := r.stepBack(); err != nil {
		return fmt.Errorf("go back to the checkpoint before of %s: %w", r.cfg.Name, err)
	}
	return nil
}

func (r *Replica) stepBack() error {
	if err := r.mend(); err != nil {
		return err
	}
	b := r.rec.Before
	switch {
	case !r.taken:
		return fmt.Errorf("the last one was not taken over: %w", ErrNoCheckpoint)
	case b == nil:
		return fmt.Errorf("the way back was not kept: %w", ErrNoCheckpoint)
	case !r.memory:
		return fmt.Errorf("the last one's RAM is in use or gone: %w", ErrMemoryAbsent)
	}
	if err := r.checkBefore(b); err != nil {
		return fmt.Errorf("%w: %w", ErrNoCheckpoint, err)
	}
	next := *r.rec
	next.Commit, next.Before = b, nil
	if err := r.files.writeRecord(r.cfg.Dir, &next); err != nil {
		if errors.Is(err, errUnsure) {
			r.broken = err
		}
		return err
	}
	r.rec = &next
	var err error
	if r.memory, err = r.restoreRAM(b); err != nil {
		r.broken = err
		return err
	}
	r.cfg.Log.Warn("replica went back to the checkpoint before", "guest", r.cfg.Name, "epoch", b.Begin.Epoch, "sequence", b.Begin.Sequence)
	return nil
}

func (r *Replica) checkBefore(b *commit) error {
	file, err := os.Open(r.ramPath(b.Delta))
	if err != nil {
		return err
	}
	defer file.Close()
	return checkDelta(file, b)
}

// addRun notes what a delta overwrites; runs come in rising order.
func (s *staged) addRun(run memory.Run) {
	if n := len(s.runs); n > 0 && s.runs[n-1].First+s.runs[n-1].Count == run.First {
		s.runs[n-1].Count += run.Count
		return
	}
	s.runs = append(s.runs, run)
}

// earliest is the oldest checkpoint that disks must be able to go back to.
func (r *record) earliest() uint64 {
	if r.Before != nil {
		return r.Before.Begin.Sequence
	}
	return r.Commit.Begin.Sequence
}

// ramFiles are the files of the record in the RAM directory.
func (r *record) ramFiles() []string {
	var names []string
	for _, c := range []*commit{r.Commit, r.Before} {
		if c != nil {
			names = append(names, c.RAM, c.Delta)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}
