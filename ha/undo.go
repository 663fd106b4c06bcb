package ha

import "fmt"

// save keeps the state before a step, for the case that its result cannot be
// stored.
func (c *Core) save() {
	if c.undo == nil {
		c.undo = &Core{}
	}
	c.copyTo(c.undo)
}

// recover goes back to the state before the step whose result could not be
// stored. Nothing of that step has been said to anyone, because the durable
// actions come first in a list.
func (c *Core) recover(failed PersistFailed) []Action {
	if c.undo == nil {
		return nil
	}
	ev := c.step
	back := c.undo
	if !c.mutant.has(mutantNoDistrust) {
		back.distrust(&c.voter)
	}
	if c.clusterDisk != back.clusterDisk || !back.clusterSafe {
		back.clusterSafe = false
	}
	back.lastTick = c.lastTick
	*c = *back
	c.undo, c.step, c.stored = nil, nil, false
	if keepsOn(ev) {
		c.retry = append(c.retry, ev)
	}
	if id := requestID(ev); id != 0 {
		c.reply(id, CodeStorage, "the decision could not be stored: "+failed.Err+"; it may hold all the same once this agent has started anew")
	}
	c.alarm(AlarmStorage, "", true, "cannot store a record, acknowledging nothing: "+failed.Err)
	list := c.out
	c.out = nil
	return list
}

// copyTo makes dst an independent copy, reusing its memory. dst gets no undo.
func (c *Core) copyTo(dst *Core) {
	old := *dst
	*dst = *c
	dst.voter = old.voter
	c.voter.copyTo(&dst.voter)
	dst.sent = append(old.sent[:0], c.sent...)
	dst.contacts = append(old.contacts[:0], c.contacts...)
	dst.alarms = append(old.alarms[:0], c.alarms...)
	dst.retry = append(old.retry[:0], c.retry...)
	dst.undo, dst.step = nil, nil
}

// Clone returns an independent copy, for exploring what may happen next.
func (c *Core) Clone() *Core {
	n := &Core{}
	c.copyTo(n)
	n.step = c.step
	if c.undo != nil {
		n.undo = &Core{}
		c.undo.copyTo(n.undo)
	}
	return n
}

// String names the node and its incarnation.
func (c *Core) String() string { return fmt.Sprintf("%s#%d", c.self, c.boot) }
