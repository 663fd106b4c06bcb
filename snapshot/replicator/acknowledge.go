package replicator

import (
	"context"
	"fmt"
	"time"
)

// done says that everything up to a frame was applied, to the goroutine that
// receives. If nothing more has come it is acknowledged at once: waking the
// acknowledger takes longer.
func (s *session) done(id uint64) error {
	s.applied.Store(id)
	if ahead, ok := s.stream.(interface{ Buffered() int }); ok && ahead.Buffered() == 0 {
		return s.tell(false)
	}
	s.wakeTeller()
	return nil
}

func (s *session) wakeTeller() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell acknowledges what was applied, if that is news, or anyway.
func (s *session) tell(anyway bool) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	id := s.applied.Load()
	if id <= s.told && !anyway {
		return nil
	}
	if err := s.stream.Send(KindAck, &Ack{ID: id}); err != nil {
		return fmt.Errorf("acknowledge to the owner: %w", err)
	}
	s.told = id
	return nil
}

// repeatEvery is how often a sync that takes long is told from a peer that is gone.
const repeatEvery = 200 * time.Millisecond

// acknowledge tells the owner how far it is; while one is being sent, more come
// together. While frames wait for a sync it repeats itself: the owner bounds that
// otherwise than silence.
func (s *session) acknowledge(ctx context.Context) error {
	repeat := time.NewTicker(repeatEvery)
	defer repeat.Stop()
	for {
		again := false
		select {
		case <-s.wake:
		case <-repeat.C:
			again = s.syncing.Load()
		case <-ctx.Done():
			return nil
		}
		if err := s.tell(again); err != nil {
			return err
		}
	}
}
