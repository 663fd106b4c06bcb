package notify

import (
	"slices"
	"time"
)

// window is how long an event that was told is not told again.
const window = 30 * time.Second

type eventKey struct{ node, kind, vm string }

// repeats finds events that say nothing new. It is not safe for concurrent use.
type repeats struct {
	seen map[eventKey]*told
}

type told struct {
	state    State
	until    time.Time // the end of its window
	repeated int       // since then
	first    uint64    // the position of the first of those
	last     Event
}

// fresh says whether e is to be told now, and how many before it were not.
func (r *repeats) fresh(e Event, now time.Time) (repeated int, ok bool) {
	key := eventKey{e.Node, e.Kind, e.VM}
	t := r.seen[key]
	if t == nil {
		t = &told{}
		r.seen[key] = t
	} else if t.state == e.State && now.Before(t.until) {
		if t.repeated++; t.repeated == 1 {
			t.first = e.Position
		}
		t.last = e
		return 0, false
	}
	repeated = t.repeated
	*t = told{state: e.State, until: now.Add(window)}
	return repeated, true
}

// end ends all windows and returns those that had repetitions.
func (r *repeats) end() (list []told) {
	for _, t := range r.seen {
		if t.repeated > 0 {
			list = append(list, *t)
		}
	}
	clear(r.seen)
	sortTold(list)
	return list
}

// due forgets windows that are over and returns those that had repetitions.
func (r *repeats) due(now time.Time) (list []told) {
	for key, t := range r.seen {
		switch {
		case now.Before(t.until):
		case t.repeated == 0:
			delete(r.seen, key)
		default:
			list = append(list, *t)
			*t = told{state: t.state, until: now.Add(window)}
		}
	}
	sortTold(list)
	return list
}

func sortTold(list []told) {
	slices.SortFunc(list, func(a, b told) int { return a.last.Time.Compare(b.last.Time) })
}

// next is when the first window is over; zero: there is none.
func (r *repeats) next() (next time.Time) {
	for _, t := range r.seen {
		if next.IsZero() || t.until.Before(next) {
			next = t.until
		}
	}
	return next
}

// oldest is the first position of the events that wait for the end of their
// window; 0: none does.
func (r *repeats) oldest() (position uint64) {
	for _, t := range r.seen {
		if t.repeated > 0 {
			position = earlier(position, t.first)
		}
	}
	return position
}
