package ha

import "fmt"

// This file is the third vote without a third machine: a device that confirms
// that the other node is off (ModeFence), or the word given to one node
// beforehand (ModeBias). See DESIGN.md, Fencing and Bias.

// shot is the outstanding order to switch the peer off.
type shot struct {
	id    uint64 // 0: none
	heard bool   // the peer was heard since: what it says of the time after is unknown
	last  uint64 // highest id used
	again Time   // not before, after one that failed
	off   Time   // when the peer was last confirmed to be off
}

// aloneObstacle keeps a node from acting on its own vote. A node that started
// must first hear its peer, and the peer must know that: while it was off, the
// peer may have gone on without it, or an operator may have moved the guest.
func (c *Core) aloneObstacle(g *guest) (Verdict, func() string) {
	if !c.knows || c.contact(g.rec.Owner).boot == 0 {
		return OwnerUnheard, func() string {
			return fmt.Sprintf("%s was not heard since this node started; it may have gone on without this node", g.rec.Owner)
		}
	}
	if g.cand.shooting || c.cluster.Mode != ModeFence {
		return "", nil
	}
	if wait := c.window + c.fenceDelay(); c.now-c.peerBeat <= wait {
		return FenceDelayed, func() string {
			return fmt.Sprintf("%s may switch this node off first; waits until it is silent for %s", g.rec.Owner, age(wait, 0))
		}
	}
	if c.shot.id == 0 && c.now < c.shot.again || c.shot.id != 0 && c.shot.heard {
		return FenceFailed, func() string { return fmt.Sprintf("%s could not be switched off; trying again soon", g.rec.Owner) }
	}
	return "", nil
}

// takeByBias takes a guest over on this node's own vote: its owner runs on
// leases of this node only, and the last one has ended.
func (c *Core) takeByBias(g *guest) {
	former := g.rec.Owner
	c.become(g, g.rec.Epoch+1, "")
	g.hold.sure = true
	c.explain(g, TookOver, func() string {
		return fmt.Sprintf("took over from %s: its lease of this node has ended (bias)", former)
	})
}

// aim wants the owner switched off. Until the shot has ended this node
// acknowledges nothing of the guest, so that its record stays what it decided on.
func (c *Core) aim(g *guest) {
	c.shoot()
	g.cand.shooting = true
	c.explain(g, Fencing, func() string { return fmt.Sprintf("%s is silent; switching it off", g.rec.Owner) })
}

func (c *Core) shoot() {
	if c.shot.id != 0 {
		return
	}
	c.shot.last++
	c.shot.id, c.shot.heard = c.shot.last, false
	for i := range c.guests {
		if g := &c.guests[i]; g.rec.Owner == c.self {
			g.hold.shotRev = g.rec.Rev
		}
	}
	c.do(Fence{ID: c.shot.id, Node: c.peer()})
}

// defend switches a silent peer off before that one does the same to this node:
// when it could take a guest of this node over, or when a guest's writes wait
// until its replica can no longer be promoted.
func (c *Core) defend() {
	peer := c.peer()
	if c.cluster.Mode != ModeFence || peer == "" || c.now < c.shot.again || c.hears(peer) || c.now-max(c.contact(peer).at, c.since) <= c.window+c.fenceDelay() {
		return
	}
	for i := range c.guests {
		g := &c.guests[i]
		if !c.stalled(g) && !c.exposed(g) {
			continue
		}
		c.shoot()
		c.explain(g, Fencing, func() string {
			return fmt.Sprintf("%s is silent; switching it off so that this node can go on without it", peer)
		})
	}
}

// stalled: the guest's writes wait until the peer's replica is outdated at a
// peer that answers, or until the peer is off.
func (c *Core) stalled(g *guest) bool {
	return g.rec.Owner == c.self && g.rec.Bound == FenceVote && g.hold.detach && g.rec.Outdated && !c.known(g)
}

// exposed: the guest runs here and the peer, not known to be off, could take it
// over.
func (c *Core) exposed(g *guest) bool {
	r := &g.rec
	return r.Owner == c.self && r.Bound == FenceVote && r.Run && !r.Gone && !r.Outdated && g.hold.sure &&
		c.shot.off <= c.contact(c.peer()).at
}

// fenceDelay is how much longer than the window this node waits before it
// shoots: the owner of guests goes first, of two owners the first node.
func (c *Core) fenceDelay() Time {
	mine, theirs := false, false
	for i := range c.guests {
		r := &c.guests[i].rec
		if r.Run && !r.Gone && r.Level != LevelNone {
			mine = mine || r.Owner == c.self
			theirs = theirs || r.Owner == c.peer()
		}
	}
	if mine && (!theirs || c.self == c.cluster.Nodes[0]) {
		return 0
	}
	return Time(c.cluster.FenceDelay)
}

// fenced is the end of a shot.
func (c *Core) fenced(e Fenced) {
	if e.ID == 0 || e.ID != c.shot.id {
		return
	}
	c.shot.id = 0
	if c.mutant.has(mutantUnconfirmedShot) {
		e.OK = true
	}
	if e.OK {
		c.shot.off = c.now
	} else {
		c.shot.again = c.now + Time(c.timing.Grace)
	}
	c.alarm(AlarmFence, "", !e.OK, fmt.Sprintf("%s could not be switched off: %s", c.peer(), e.Err))
	for i := range c.guests {
		g := &c.guests[i]
		switch {
		case g.rec.Owner == c.self && e.OK:
			g.hold.offRev = max(g.hold.offRev, g.hold.shotRev)
		case g.rec.Owner != c.self && g.cand.shooting:
			c.shotEnded(g, e)
		}
	}
}

// shotEnded decides about one guest of the node that was shot at. What was
// known of it when the shot was ordered still holds, but the user of this node
// or its replica may have changed.
func (c *Core) shotEnded(g *guest, e Fenced) {
	g.cand.shooting = false
	if !e.OK {
		c.explain(g, FenceFailed, func() string {
			return fmt.Sprintf("not taking over: %s could not be switched off: %s", g.rec.Owner, e.Err)
		})
		return
	}
	if verdict, reason := c.flagObstacle(g, FenceVote); verdict != "" {
		c.explain(g, verdict, func() string { return "not taking over: " + reason() })
		return
	}
	former := g.rec.Owner
	c.become(g, g.rec.Epoch+1, FenceVote)
	g.hold.sure, g.hold.offRev = true, g.rec.Rev
	c.explain(g, TookOver, func() string { return fmt.Sprintf("took over from %s: it was switched off", former) })
}
