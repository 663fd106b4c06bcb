package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Heard says how far a target is in its owner's log.
type Heard struct {
	// Of the target; none has a secret in it.
	Key  string `msgpack:"key"`
	Kind string `msgpack:"kind"`
	Name string `msgpack:"name"`
	// Position: what is up to here is done with.
	Position uint64 `msgpack:"position"`
	// New: it has not been told yet which alarms stood at Position.
	New bool `msgpack:"new,omitempty"`
	// Ended counts the deliveries of this run that were taken or refused. While it
	// stays the same, nothing would be told twice for want of this Heard.
	Ended int `msgpack:"-"`
}

// Gone is a target that is not configured any more.
type Gone struct {
	Name  string
	Count int // events in the log that it had not got, or that were not for it
}

// identity is what a target is known by to the next run. The same one may be
// there twice.
func (c Config) identity(i int) (kind, key string) {
	word := func(t Target) (kind, where string) {
		switch {
		case t.Webhook != "":
			return "webhook", t.Webhook
		case t.Exec != "":
			return "exec", t.Exec
		}
		return "syslog", ""
	}
	kind, where := word(c[i])
	before := 0
	for _, t := range c[:i] {
		if k, w := word(t); k == kind && w == where {
			before++
		}
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + where))
	return kind, fmt.Sprintf("%s-%s-%d", kind, hex.EncodeToString(sum[:12]), before)
}

// Heard lists the targets in the order of the configuration. Every event up to
// a Position was handed to Notify before Heard was called.
func (n *Notifier) Heard() []Heard {
	n.mu.Lock()
	defer n.mu.Unlock()
	waits := n.repeats.oldest()
	list := make([]Heard, 0, len(n.targets))
	for _, t := range n.targets {
		h := Heard{Key: t.key, Kind: t.kind, Name: t.name(), Position: t.queue.settled(n.last), Ended: t.ended}
		if waits > t.from {
			h.Position = min(h.Position, waits-1)
		}
		h.Position = max(h.Position, t.from)
		h.New = len(t.queue.items) > 0 && t.queue.items[0].standing
		list = append(list, h)
	}
	return list
}

// Resume goes on where an earlier run ended. heard is what was stored of that,
// last the newest position in the log, standing the alarms that stand; since
// gives the events of the log after a position, oldest first. It is called once,
// before the first Notify, and returns the targets that are not there any more.
func (n *Notifier) Resume(heard []Heard, last uint64, standing []Event, since func(position uint64) []Event) []Gone {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = last
	fresh, rest := n.match(heard)
	lowest := last
	for _, t := range n.targets {
		lowest = min(lowest, t.from)
	}
	for _, h := range rest {
		lowest = min(lowest, h.Position)
	}
	var events []Event
	if lowest < last {
		events = since(lowest)
	}
	for _, t := range n.targets {
		n.begin(t, fresh[t], standing, beyond(events, t.from))
	}
	now := time.Now()
	for _, e := range events {
		at := e.Time // a clock that was wrong makes no window that lasts
		if at.After(now) {
			at = now
		}
		e = e.tidy()
		if repeated, ok := n.repeats.fresh(e, at); ok {
			n.enqueue(e, repeated)
		}
	}
	var gone []Gone
	for _, h := range rest {
		if count := len(beyond(events, h.Position)); count > 0 {
			gone = append(gone, Gone{Name: h.Name, Count: count})
		}
	}
	return gone
}

// match gives each target the place where it, or the one that it replaces, was;
// fresh are those that begin, and rest are the places that nobody takes. The lock
// must be held.
func (n *Notifier) match(heard []Heard) (fresh map[*target]bool, rest []Heard) {
	places, fresh := map[string]Heard{}, map[*target]bool{}
	for _, h := range heard {
		places[h.Key] = h
	}
	take := func(t *target, h Heard) {
		delete(places, h.Key)
		t.from, fresh[t] = min(h.Position, n.last), h.New
	}
	var without []*target
	for _, t := range n.targets {
		if h, ok := places[t.key]; ok {
			take(t, h)
		} else {
			without = append(without, t)
		}
	}
	for _, t := range without {
		t.from, fresh[t] = n.last, true
		for _, h := range heard {
			if _, free := places[h.Key]; free && h.Kind == t.kind {
				take(t, h)
				break
			}
		}
	}
	for _, h := range heard {
		if _, free := places[h.Key]; free {
			rest = append(rest, h)
		}
	}
	return fresh, rest
}

// begin counts what t missed for good, and tells it of the alarms that stand if
// it cannot know of them; own are the events that it will hear of. The lock must
// be held.
func (n *Notifier) begin(t *target, fresh bool, standing, own []Event) {
	if had := n.last - t.from; had > uint64(len(own)) {
		t.queue.miss(int(had)-len(own), t.from+1)
		fresh = true
	}
	if !fresh {
		return
	}
	begin := map[eventKey]bool{}
	for _, e := range own {
		if e.State == On {
			begin[eventKey{e.Node, e.Kind, e.VM}] = true
		}
	}
	for _, e := range standing {
		if begin[eventKey{e.Node, e.Kind, e.VM}] {
			continue
		}
		d := n.delivery(e.tidy(), 0)
		d.position, d.standing = t.from+1, true // nothing after it is done with before it
		t.queue.add(d)
	}
}

// beyond are the events after a position.
func beyond(events []Event, position uint64) []Event {
	for i, e := range events {
		if e.Position > position {
			return events[i:]
		}
	}
	return nil
}
