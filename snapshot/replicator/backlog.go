package replicator

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"vmctl/snapshot/undo"
)

// While an older content is held, what a write overwrites has to be durable in the
// log before the write. That is waited for once for all writes that have come
// meanwhile: the receiving goroutine puts them into a backlog, and another applies
// it, batch by batch.

// change is a Write or Zero on its way into a disk.
type change struct {
	id          uint64
	disk        *undo.Disk
	off, length int64
	data        []byte
	zero        bool
}

func (c change) apply() error {
	if c.zero {
		return c.disk.Zero(c.off, c.length)
	}
	_, err := c.disk.WriteAt(c.data, c.off)
	return err
}

// mostBacklog bounds the bytes of data in a backlog.
const mostBacklog = 8 << 20

type backlog struct {
	mu      sync.Mutex
	changes []change
	bytes   int
	busy    bool          // a batch is being applied
	moved   chan struct{} // closed and made anew when one of the above changes
}

func (b *backlog) init() { b.moved = make(chan struct{}) }

func (b *backlog) broadcast() {
	close(b.moved)
	b.moved = make(chan struct{})
}

// await returns, with the lock held, when test is true.
func (b *backlog) await(ctx context.Context, test func() bool) error {
	b.mu.Lock()
	for !test() {
		moved := b.moved
		b.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b.mu.Lock()
	}
	return nil
}

// add puts a change in, whose data is the caller's again afterwards.
func (b *backlog) add(ctx context.Context, c change) error {
	if err := b.await(ctx, func() bool { return b.bytes < mostBacklog }); err != nil {
		return err
	}
	defer b.mu.Unlock()
	c.data = bytes.Clone(c.data)
	b.changes, b.bytes = append(b.changes, c), b.bytes+len(c.data)
	b.broadcast()
	return nil
}

// drained returns when everything in it was applied.
func (b *backlog) drained(ctx context.Context) error {
	if err := b.await(ctx, func() bool { return len(b.changes) == 0 && !b.busy }); err != nil {
		return err
	}
	b.mu.Unlock()
	return nil
}

// take takes all there is, once there is something; done is called after it.
func (b *backlog) take(ctx context.Context) ([]change, error) {
	if err := b.await(ctx, func() bool { return len(b.changes) > 0 }); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	batch := b.changes
	b.changes, b.bytes, b.busy = nil, 0, true
	b.broadcast()
	return batch, nil
}

func (b *backlog) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	b.broadcast()
}

// change applies a change, or leaves it to applyHeld.
func (s *session) change(ctx context.Context, c change) error {
	if s.r.isHolding() {
		if err := s.held.add(ctx, c); err != nil {
			return err
		}
		s.lastID = c.id
		return nil
	}
	if err := s.held.drained(ctx); err != nil {
		return err
	}
	if err := s.r.apply(s.generation, c.apply); err != nil {
		return err
	}
	s.lastID = c.id
	return s.done(c.id)
}

// applyHeld applies what is in the backlog.
func (s *session) applyHeld(ctx context.Context) error {
	for {
		batch, err := s.held.take(ctx)
		if err != nil {
			return nil // the session ends
		}
		if err := s.applyBatch(batch); err != nil {
			return err
		}
		s.held.done()
	}
}

func (s *session) applyBatch(batch []change) error {
	s.syncing.Store(true)
	defer s.syncing.Store(false)
	if err := s.r.prepare(s.generation, batch); err != nil {
		return err
	}
	for _, c := range batch {
		err := s.r.apply(s.generation, c.apply)
		if err != nil && !errors.Is(err, ErrStopped) && s.r.isHolding() { // a full disk, for example
			if err := s.r.giveUp(s.generation, err); err != nil {
				return err
			}
			err = s.r.apply(s.generation, c.apply)
		}
		if err != nil {
			return err
		}
	}
	s.applied.Store(batch[len(batch)-1].id)
	s.wakeTeller()
	return nil
}

// disksOf are the disks of a batch.
func disksOf(batch []change) (disks []*undo.Disk) {
	for _, c := range batch {
		if !slices.Contains(disks, c.disk) {
			disks = append(disks, c.disk)
		}
	}
	return disks
}
