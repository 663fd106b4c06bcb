package ha

import "fmt"

// This file holds every way a guest changes its owner, seen from one node.

// compare acts on guests that a heartbeat moved or removed.
func (c *Core) compare() {
	for i := range c.guests {
		g := &c.guests[i]
		before := c.undo.find(g.rec.Guest)
		if before == nil || g.rec.Owner == c.self {
			continue
		}
		switch {
		case before.rec.Owner == c.self:
			c.yielded(g)
		case g.rec.Gone && !before.rec.Gone:
			c.endForce(g, CodeNotFound, "the guest was removed by its owner")
			g.cand = candidacy{}
			c.do(Forgotten{Guest: g.rec.Guest})
		case g.rec.Epoch != before.rec.Epoch:
			c.endForce(g, CodeConflict, "the guest moved on")
			g.cand = g.cand.ended()
		}
	}
}

// yielded is the end of an ownership: somebody else holds a higher epoch.
func (c *Core) yielded(g *guest) {
	g.hold, g.cand = holding{}, candidacy{}
	c.do(Yield{Guest: g.rec.Guest, Epoch: g.rec.Epoch, Owner: g.rec.Owner})
	c.explain(g, Yielded, func() string {
		return fmt.Sprintf("%s owns epoch %d", g.rec.Owner, g.rec.Epoch)
	})
}

// learn takes over what another voter knows durably, if it is of a higher epoch.
func (c *Core) learn(r Record) {
	g := c.find(r.Guest)
	if g == nil || r.Gone || r.Epoch < g.rec.Epoch || (r.Epoch == g.rec.Epoch && !c.mutant.has(mutantLearnSameEpoch)) {
		return
	}
	if r.Owner == c.self {
		c.inherit(g, r)
		return
	}
	mine := g.rec.Owner == c.self
	g.adopt(r)
	if mine {
		c.yielded(g)
		return
	}
	c.endForce(g, CodeConflict, "the guest moved on")
	g.cand = g.cand.ended()
}

// inherit is how a node learns from others that it owns a guest: the answer to
// its claim was lost, or a handover came by way of the witness. Leases that it
// acknowledged to the former owner may be alive, unless it had promised.
func (c *Core) inherit(g *guest, r Record) {
	quiet := g.granted + c.window
	if g.rec.Promised == r.Epoch || c.mutant.has(mutantNoQuiet) {
		quiet = 0
	}
	arbiter := r.Arbiter
	if arbiter == c.self {
		arbiter = ""
	}
	c.become(g, r.Epoch, arbiter)
	g.hold.quiet = quiet
	if quiet > c.now {
		c.explain(g, Quiet, func() string {
			return fmt.Sprintf("owns epoch %d; waits for the former owner's leases to end", r.Epoch)
		})
	}
}

// become makes this node the owner at an epoch.
func (c *Core) become(g *guest, epoch uint64, arbiter NodeID) {
	r := &g.rec
	r.Epoch, r.Rev = epoch, 1
	r.Owner, r.Standby = c.self, c.peer()
	r.Arbiter, r.Bound = arbiter, arbiter
	r.Outdated, r.Taking = true, true
	r.Promised, r.Handed, r.Alone = 0, false, false
	g.hold, g.cand = holding{since: c.now}, candidacy{}
	c.urgent = true
}

// gift is a handover by the owner itself, which has stopped the guest: there is
// no lease to wait for.
func (c *Core) gift(from NodeID, r Record) {
	g := c.find(r.Guest)
	if g == nil || r.Owner != c.self || g.rec.Owner != from || g.rec.Epoch+1 != r.Epoch {
		return
	}
	run, level, arbiter := r.Run, r.Level, r.Arbiter
	if arbiter == c.self { // the former owner lived on this node's leases
		arbiter = ""
	}
	c.become(g, r.Epoch, arbiter)
	g.rec.Run, g.rec.Level = run, level
	g.hold.sure = true
	c.explain(g, TookOver, func() string { return fmt.Sprintf("%s handed it over at epoch %d", from, r.Epoch) })
}

// handover gives a guest to the peer.
func (c *Core) handover(e Handover) {
	g := c.find(e.Guest)
	switch {
	case g == nil || g.rec.Gone:
		c.reply(e.ID, CodeNotFound, "no such guest")
	case g.rec.Owner != c.self:
		c.reply(e.ID, CodeNotOwner, fmt.Sprintf("the guest belongs to %s", g.rec.Owner))
	case g.rec.Taking:
		c.reply(e.ID, CodeConflict, "the guest is being taken over here")
	case c.peer() == "" || !c.hears(c.peer()):
		c.reply(e.ID, CodeUnreachable, "the peer is not heard")
	case g.rec.Outdated && !e.Streamed:
		c.reply(e.ID, CodeOutdated, "the peer's replica is not in sync")
	case g.rec.Arbiter != g.rec.Bound || g.hold.arm != 0:
		c.reply(e.ID, CodeConflict, "the witness is just being changed; try again")
	default:
		r := &g.rec
		r.Epoch, r.Rev = r.Epoch+1, 0
		r.Owner, r.Standby = c.peer(), c.self
		r.Outdated, r.Handed, r.Bound = true, true, ""
		g.hold, g.cand = holding{}, candidacy{}
		c.urgent = true
		if c.mutant.has(mutantHandoverKeepsEpoch) {
			r.Epoch--
		}
		c.do(Yield{Guest: r.Guest, Epoch: r.Epoch, Owner: r.Owner})
		c.explain(g, HandedOut, func() string { return fmt.Sprintf("given to %s at epoch %d", r.Owner, r.Epoch) })
		c.reply(e.ID, OK, "")
	}
}
