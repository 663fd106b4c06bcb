package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// EventsDropped is the name of an event that QEMU did not send: in its place
// Dropped events are missing. What was learned from events must be asked anew.
const EventsDropped = "VMCTL_EVENTS_DROPPED"

// A subscriber that does not read keeps at most this many events and bytes; the
// oldest go first. A mirror with on-target-error=ignore makes 40000 a second.
const (
	maxQueued      = 8192
	maxQueuedBytes = 4 << 20
)

// Event is something QEMU reports by itself.
type Event struct {
	Name    string
	Data    json.RawMessage // nil if the event has none; not to be modified
	Time    time.Time       // QEMU's wall clock
	Dropped int             // only with EventsDropped
}

// Decode reads the event's data into v.
func (e Event) Decode(v any) error {
	if err := decodeReply(e.Data, v); err != nil {
		return fmt.Errorf("qmp: event %s: %w", e.Name, err)
	}
	return nil
}

// Events subscribes to all events from now on. Subscribe before the command
// whose events are wanted; an event may arrive after the reply to a later command.
//
// The channel is closed after cancel, after Close, and, once everything queued
// was read, when the connection is lost. cancel may be called more than once and
// must be called if the channel is not read to its end.
func (c *Client) Events() (ch <-chan Event, cancel func()) {
	s := &subscriber{ch: make(chan Event), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		close(s.ch)
		return s.ch, func() {}
	}
	c.subscribers[s] = struct{}{}
	c.goroutines.Go(func() { s.pump(c.quit) })
	return s.ch, sync.OnceFunc(func() {
		c.mu.Lock()
		delete(c.subscribers, s)
		c.mu.Unlock()
		close(s.stop)
	})
}

func (c *Client) publish(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subscribers {
		s.add(e)
	}
}

// subscriber is the queue between the reader and one consumer.
type subscriber struct {
	ch   chan Event
	wake chan struct{}
	stop chan struct{}

	mu       sync.Mutex
	queue    []Event
	bytes    int
	dropped  int
	finished bool // nothing will be added
}

func (s *subscriber) add(e Event) {
	s.mu.Lock()
	s.queue = append(s.queue, e)
	s.bytes += len(e.Data)
	for len(s.queue) > maxQueued || s.bytes > maxQueuedBytes && len(s.queue) > 1 {
		s.bytes -= len(s.queue[0].Data)
		s.queue[0] = Event{}
		s.queue = s.queue[1:]
		s.dropped++
	}
	s.mu.Unlock()
	s.signal()
}

func (s *subscriber) finish() {
	s.mu.Lock()
	s.finished = true
	s.mu.Unlock()
	s.signal()
}

func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns what has gathered, with the mark of what is missing in front.
func (s *subscriber) take() (batch []Event, finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped > 0 {
		batch = append(batch, Event{Name: EventsDropped, Time: s.queue[0].Time, Dropped: s.dropped})
	}
	batch = append(batch, s.queue...)
	s.queue, s.bytes, s.dropped = nil, 0, 0
	return batch, s.finished
}

// pump hands the queue to the consumer. It ends with the subscription.
func (s *subscriber) pump(quit <-chan struct{}) {
	defer close(s.ch)
	for {
		batch, finished := s.take()
		for _, e := range batch {
			select {
			case s.ch <- e:
			case <-s.stop:
				return
			case <-quit:
				return
			}
		}
		if finished {
			return
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-s.wake:
		case <-s.stop:
			return
		case <-quit:
			return
		}
	}
}

// WaitEvent reads ch until match accepts an event. It fails with ErrClosed when
// the connection ends and with ErrEventsDropped when the event may be among lost
// ones, unless match accepts that mark.
func WaitEvent(ctx context.Context, ch <-chan Event, match func(Event) bool) (Event, error) {
	for {
		select {
		case e, open := <-ch:
			switch {
			case !open:
				return Event{}, fmt.Errorf("qmp: waiting for an event: %w", ErrClosed)
			case match(e):
				return e, nil
			case e.Name == EventsDropped:
				return Event{}, fmt.Errorf("qmp: waiting for an event: %d %w", e.Dropped, ErrEventsDropped)
			}
		case <-ctx.Done():
			return Event{}, fmt.Errorf("qmp: waiting for an event: %w", ctx.Err())
		}
	}
}

// Named matches an event by its name.
func Named(name string) func(Event) bool {
	return func(e Event) bool { return e.Name == name }
}
