package node

import (
	"sync"
	"time"

	"vmctl/ha"
)

// contact knows when the peer fell silent last. A connection that was cut says it much
// later.
type contact struct {
	mu         sync.Mutex
	last, fell time.Time
}

// silence is longer than what lies between two heartbeats.
const silence = time.Second

// heard is called for each of the peer's words.
func (c *contact) heard(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silentFor(now) {
		c.fell = c.last
	}
	c.last = now
}

// silentFor says whether it is silent; c.mu is held.
func (c *contact) silentFor(now time.Time) bool {
	return !c.last.IsZero() && now.Sub(c.last) > silence
}

// silent is when it fell silent last, which it may be now; the zero Time: never.
func (c *contact) silent(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silentFor(now) {
		return c.last
	}
	return c.fell
}

// deliver takes a message from a lease link.
func (n *Node) deliver(m ha.Message) {
	if other, ok := n.members.peer(); ok && m.Sender() == ha.NodeID(other.Name) {
		n.contact.heard(time.Now())
	}
	n.decider.deliver(m)
}
