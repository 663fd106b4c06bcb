package vm

import "sync"

// backlog is how many events wait for a slow reader before it misses some.
const backlog = 64

// feed hands events to any number of readers and never waits for one.
type feed struct {
	mu      sync.Mutex
	readers map[chan Event]struct{}
	closed  bool
}

// subscribe gives a channel that is closed after the last event, or by cancel.
func (f *feed) subscribe() (<-chan Event, func()) {
	ch := make(chan Event, backlog)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(ch)
		return ch, func() {}
	}
	if f.readers == nil {
		f.readers = map[chan Event]struct{}{}
	}
	f.readers[ch] = struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.readers[ch]; ok {
			delete(f.readers, ch)
			close(ch)
		}
	}
}

// publish reports how many readers were too slow. They lose their oldest
// event, never the newest: the last one says how the guest ended.
func (f *feed) publish(e Event) (slow int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.readers {
		select {
		case ch <- e:
			continue
		default:
			slow++
		}
		select {
		case <-ch:
		default:
		}
		ch <- e // there is room: only publish writes, under the lock
	}
	return slow
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for ch := range f.readers {
		close(ch)
	}
	f.readers = nil
}
