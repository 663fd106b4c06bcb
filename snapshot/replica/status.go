package replica

import (
	"context"
	"errors"
	"fmt"
	"os"

	"vmctl/snapshot/memory"
)

// Status is where a replica stands.
type Status struct {
	Floor    uint64 // epochs below are refused
	Epoch    uint64 // of the committed checkpoint
	Sequence uint64 // of the committed checkpoint, 0 if there is none
	Root     uint64 // sequence of the full image it started from
	Time     int64  // wall clock of its pause, ns since 1970
	RunState string // of the guest before that pause
	Memory   bool   // its RAM is here
	Complete bool   // it can be taken over
	Void     string // why there is none, after Void
	RAMPath  string // its RAM file; changes with every full image
	RAMSize  int64  // bytes
	Bytes    int64  // memory taken by the RAM file
	Blob     int    // bytes of device state
}

// Status waits for a commit under way.
func (r *Replica) Status(ctx context.Context) (Status, error) {
	if err := r.acquire(ctx); err != nil {
		return Status{}, fmt.Errorf("status of the replica of %s: %w", r.cfg.Name, err)
	}
	defer r.release()
	s := Status{Floor: r.floor.Load()}
	if r.rec.Void != nil && r.rec.Commit == nil {
		s.Void = r.rec.Void.Reason
	}
	c := r.rec.Commit
	if c == nil {
		return s, nil
	}
	s.Epoch, s.Sequence, s.Root, s.Time = c.Begin.Epoch, c.Begin.Sequence, c.Begin.Root, c.Begin.Time
	s.RunState, s.RAMSize, s.Blob = c.Begin.RunState, c.Begin.RAMSize, len(c.BlobData)
	s.Memory = r.memory
	s.Complete = s.Memory && r.broken == nil
	if s.Memory {
		s.RAMPath = r.ramPath(c.RAM)
		bytes, err := memory.Allocated(s.RAMPath)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
		s.Bytes = bytes
	}
	return s, nil
}
