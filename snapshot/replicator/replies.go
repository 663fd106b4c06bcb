package replicator

import (
	"fmt"
	"time"

	"vmctl/node/wire"
)

// receive takes what the peer says.
func (l *link) receive() error {
	for {
		kind, body, err := l.stream.Receive()
		if err != nil {
			return fmt.Errorf("receive from the peer: %w", err)
		}
		if err := l.take(kind, body); err != nil {
			return err
		}
	}
}

func (l *link) take(kind wire.Kind, body []byte) error {
	switch kind {
	case KindAck:
		var ack Ack
		if err := decode(body, &ack); err != nil {
			return err
		}
		return l.acknowledge(ack.ID)
	case KindHashReply:
		var reply HashReply
		if err := decode(body, &reply); err != nil {
			return err
		}
		return l.deliver(reply)
	case KindWhole:
		var m Whole
		if err := decode(body, &m); err != nil {
			return err
		}
		return l.deliverWhole(m)
	case KindError:
		var failure Failure
		if err := decode(body, &failure); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s", ErrPeer, failure.Text)
	}
	return fmt.Errorf("%w: kind %d from the peer", ErrMessage, kind)
}

// acknowledge lets those go that wait for frames up to id.
func (l *link) acknowledge(id uint64) error {
	over, err := l.upTo(id)
	for _, call := range over {
		call(true)
	}
	return err
}

// upTo ends what waits for frames up to id, and returns what is to be called then.
func (l *link) upTo(id uint64) (over []func(bool), err error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if id > l.lastID || id < l.acked {
		return nil, fmt.Errorf("%w: acknowledgement of %d, after %d of %d", ErrMessage, id, l.acked, l.lastID)
	}
	l.acked, l.heard = id, time.Now()
	done := 0
	for ; done < len(l.pending) && l.pending[done].id <= id; done++ {
		if call := l.pending[done].end(true); call != nil {
			over = append(over, call)
			l.r.waiting--
		}
		l.pending[done] = nil
	}
	l.pending = l.pending[done:]
	return over, nil
}

// deliver gives a hash reply to the worker that waits for it.
func (l *link) deliver(reply HashReply) error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	call := l.requests[reply.ID]
	if call == nil || len(reply.Sums) != call.chunks*len(call.sums[0]) {
		return fmt.Errorf("%w: %d bytes of sums for request %d", ErrMessage, len(reply.Sums), reply.ID)
	}
	delete(l.requests, reply.ID)
	l.heard = time.Now()
	for i := range call.chunks {
		copy(call.sums[i][:], reply.Sums[i*len(call.sums[i]):])
	}
	close(call.done)
	return nil
}

// watch ends the link when the peer is silent while something waits for it.
func (l *link) watch() error {
	tick := time.NewTicker(l.r.opts.AckDeadline / 8)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-l.ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(before) >= l.r.opts.AckDeadline {
			// It was us who did not run; the answers may lie in the socket.
			l.r.mu.Lock()
			l.heard = now
			l.r.mu.Unlock()
		}
		before = now
		if err := l.silent(now); err != nil {
			return err
		}
	}
}

// hashPatience is how many AckDeadlines a compare waits for sums: the peer may
// have to read a cold disk, and no guest waits for that.
const hashPatience = 10

func (l *link) silent(now time.Time) error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	limit := l.r.opts.AckDeadline
	if len(l.pending) > 0 {
		first := l.pending[0].since
		if waited := now.Sub(later(first, l.heard)); waited >= limit {
			return fmt.Errorf("%w: a write waits for %v", ErrSilent, now.Sub(first).Round(time.Millisecond))
		}
		if waited := now.Sub(first); waited >= l.r.opts.MaxStall {
			return fmt.Errorf("%w fast enough: a write waits for %v", ErrSilent, waited.Round(time.Millisecond))
		}
	}
	for _, call := range l.requests {
		if waited := now.Sub(later(call.since, l.heard)); waited >= hashPatience*limit {
			return fmt.Errorf("%w: sums are missing for %v", ErrSilent, waited.Round(time.Millisecond))
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
