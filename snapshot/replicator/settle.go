package replicator

import (
	"context"
	"fmt"
	"time"
)

// whole is a Whole on its way to be made durable.
type whole struct {
	id, turn uint64
}

// hold takes a Hold.
func (s *session) hold(ctx context.Context, body []byte) error {
	var m Hold
	if err := decode(body, &m); err != nil {
		return err
	}
	if err := s.held.drained(ctx); err != nil {
		return err
	}
	s.syncing.Store(true)
	defer s.syncing.Store(false)
	return s.r.hold(s.generation, m.Keep)
}

// queueWhole hands a Whole over: making it durable must not hold up writes.
func (s *session) queueWhole(ctx context.Context, body []byte) error {
	var m Whole
	if err := decode(body, &m); err != nil {
		return err
	}
	if err := s.held.drained(ctx); err != nil {
		return err
	}
	s.r.mu.Lock()
	turn := s.r.turn
	s.r.mu.Unlock()
	select {
	case s.wholes <- whole{m.ID, turn}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle answers each Whole.
func (s *session) settle(ctx context.Context) error {
	for {
		var w whole
		select {
		case w = <-s.wholes:
		case <-ctx.Done():
			return nil
		}
		settled, err := s.r.settleWhole(s.generation, w.turn)
		if err != nil {
			return err
		}
		if !settled {
			continue
		}
		if err := s.stream.Send(KindWhole, &Whole{ID: w.id}); err != nil {
			return fmt.Errorf("tell the owner that the replica is whole: %w", err)
		}
	}
}

// settleWhole, at the owner, returns when the peer has made durable that its disks
// are whole, and keeps nothing older: until then a takeover would bring that back.
func (l *link) settleWhole(ctx context.Context) error {
	if !l.peer.Holds {
		return nil
	}
	l.r.mu.Lock()
	l.lastWhole++
	settled := make(chan struct{})
	l.settling, l.settled = l.lastWhole, settled
	l.push(frame{KindWhole, &Whole{ID: l.lastWhole}})
	l.r.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until the peer's disks are whole and durable: %w", context.Cause(ctx))
	}
}

// deliverWhole takes the peer's answer, which may be one to an earlier question.
func (l *link) deliverWhole(m Whole) error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if m.ID == 0 || m.ID > l.lastWhole {
		return fmt.Errorf("%w: whole at %d of %d", ErrMessage, m.ID, l.lastWhole)
	}
	l.heard = time.Now()
	if m.ID == l.settling {
		l.settling = 0
		close(l.settled)
	}
	return nil
}

// beginHold says that a resync begins with what is pushed next; r.mu is held. The
// replica keeps what it has only if it does not count: a takeover by itself never
// looks at what is kept.
func (l *link) beginHold(keep bool) {
	if l.peer.Holds {
		l.push(frame{KindHold, &Hold{Keep: keep}})
	}
}
