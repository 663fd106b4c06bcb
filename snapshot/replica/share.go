package replica

import (
	"context"
	"sync"
	"time"
)

const (
	// fullShare is the part of what deltas send that full images may send
	// besides, as a divisor.
	fullShare = 8
	// mostCredit bounds what full images may catch up on, in bytes: a chunk or
	// two at a time, so that a delta never waits for more.
	mostCredit = 512 << 10
	// fullPatience is how long a full image waits with a chunk at most; it is
	// shorter than any timeout of a stream.
	fullPatience = 500 * time.Millisecond
	// bulkPages is what makes a delta as good as a full image (64 MiB).
	bulkPages = 16 << 10
)

// Share is the way to the peer, shared by all senders of a node. While deltas
// are under way, full images hold back: theirs takes as long as it takes, but a
// delta that is late is work lost of a guest that was protected. Full images
// go on at an eighth of the deltas' speed at least. Deltas do not wait for each
// other; their connections share the link evenly.
//
// It is safe for concurrent use. A nil *Share lets everybody through.
type Share struct {
	mu     sync.Mutex
	deltas int           // under way
	credit int64         // bytes that full images may send in spite of them
	news   chan struct{} // closed when one of the two has changed
}

// NewShare returns a link without traffic.
func NewShare() *Share { return &Share{news: make(chan struct{})} }

// begin announces a checkpoint; end must follow.
func (s *Share) begin(bulk bool) { s.count(bulk, 1) }

func (s *Share) end(bulk bool) { s.count(bulk, -1) }

func (s *Share) count(bulk bool, by int) {
	if s == nil || bulk {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deltas += by
	s.tell()
}

// tell wakes the full images. The caller holds the lock.
func (s *Share) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// chunk waits until a chunk of that many bytes may be sent.
func (s *Share) chunk(ctx context.Context, bulk bool, bytes int) error {
	if s == nil {
		return nil
	}
	if !bulk {
		s.mu.Lock()
		s.credit = min(s.credit+int64(bytes)/fullShare, mostCredit)
		s.tell()
		s.mu.Unlock()
		return nil
	}
	patience := time.NewTimer(fullPatience)
	defer patience.Stop()
	for {
		free, news := s.take(int64(bytes))
		if free {
			return nil
		}
		select {
		case <-news:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take lets a chunk of a full image through, or says what to wait for.
func (s *Share) take(bytes int64) (free bool, news <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.deltas == 0:
		return true, nil
	case s.credit >= bytes:
		s.credit -= bytes
		return true, nil
	}
	return false, s.news
}
