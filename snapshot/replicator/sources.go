package replicator

import (
	"context"
	"fmt"
	"sync"
)

// sources are the views of the live disks that a link's workers share.
type sources struct {
	disks []Disk
	mu    sync.Mutex
	open  []Source
}

func newSources(disks []Disk) *sources {
	return &sources{disks: disks, open: make([]Source, len(disks))}
}

// read fills buf from a disk, opening its view if need be. A view whose read
// failed is opened anew the next time; the end of ctx cuts a read off.
func (s *sources) read(ctx context.Context, disk int, buf []byte, off int64) error {
	source, err := s.get(ctx, disk)
	if err != nil {
		return fmt.Errorf("open the live disk %s for the compare: %w", s.disks[disk].Name, err)
	}
	stop := context.AfterFunc(ctx, func() { s.drop(disk, source) })
	defer stop()
	if _, err := source.ReadAt(buf, off); err != nil {
		s.drop(disk, source)
		return fmt.Errorf("read the live disk %s at %d: %w", s.disks[disk].Name, off, err)
	}
	return nil
}

func (s *sources) get(ctx context.Context, disk int) (Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[disk] == nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		source, err := s.disks[disk].Source(ctx)
		if err != nil {
			return nil, err
		}
		s.open[disk] = source
	}
	return s.open[disk], nil
}

// drop closes a view, once.
func (s *sources) drop(disk int, source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[disk] == source {
		s.open[disk] = nil
		source.Close()
	}
}

// close closes all views, after the last read.
func (s *sources) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, source := range s.open {
		if source != nil {
			s.open[i] = nil
			source.Close()
		}
	}
}
