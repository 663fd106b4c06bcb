package ha

import "fmt"

// hold is the owner's step for one guest.
func (c *Core) hold(g *guest) {
	if g.rec.Gone {
		c.settled(g)
		return
	}
	c.turn(g)
	c.settled(g)
	c.lease(g)
}

// acked is the owner's side of an acknowledgement: leases and stored revisions.
func (c *Core) acked(m Ack) {
	deadline := c.leaseFrom(m.Seq)
	for i := range m.Grants {
		grant := &m.Grants[i]
		if !grant.OK {
			c.learn(grant.Record)
			continue
		}
		g := c.find(grant.Guest)
		if g == nil || g.rec.Owner != c.self || g.rec.Epoch != grant.Epoch {
			continue
		}
		if g.rec.Gone && m.From == c.peer() {
			g.hold.goneBoot, g.hold.goneBeat = m.FromBoot, m.Beat
		}
		c.grantedBy(g, m.From, grant.Rev, deadline)
	}
	for _, r := range m.Records {
		c.learn(r)
	}
}

func (c *Core) grantedBy(g *guest, from NodeID, rev uint64, deadline Time) {
	h := &g.hold
	switch from {
	case c.peer():
		h.peer = max(h.peer, deadline)
		h.peerRev = max(h.peerRev, rev)
	case c.leaser(g):
		if h.from != from {
			h.from, h.witness, h.witnessRev = from, 0, 0
		}
		h.witness = max(h.witness, deadline)
		h.witnessRev = max(h.witnessRev, rev)
	default:
		return
	}
	h.sure = true
}

// leaser is the witness whose acknowledgements count for the guest: the one it
// is bound to, else the one it is to be bound to.
func (c *Core) leaser(g *guest) NodeID {
	if g.rec.Bound != "" {
		return g.rec.Bound
	}
	return c.wants(g)
}

// known says whether a voter whose vote a claim would need has stored the
// owner's present revision.
func (c *Core) known(g *guest) bool {
	h := &g.hold
	if g.rec.Bound == "" && g.rec.Arbiter == "" {
		return true // no claim is possible
	}
	if c.mutant.has(mutantKnownAnyRevision) && (h.peerRev > 0 || h.from == g.rec.Bound && h.witnessRev > 0) {
		return true
	}
	return h.peerRev == g.rec.Rev || (h.from == g.rec.Bound && h.witnessRev == g.rec.Rev) ||
		(g.rec.Bound == FenceVote && h.offRev == g.rec.Rev)
}

// both says whether every voter of the guest has stored the present revision.
func (c *Core) both(g *guest) bool {
	h := &g.hold
	return h.peerRev == g.rec.Rev && (g.rec.Bound == "" || (h.from == g.rec.Bound && h.witnessRev == g.rec.Rev))
}

// settled tells the engine that the replica is durably outdated, and others
// that the latest change cannot be lost.
func (c *Core) settled(g *guest) {
	known := c.known(g)
	g.rec.Alone = g.rec.Bound == FenceVote && g.rec.Outdated && (known || g.rec.Alone)
	if g.hold.detach && g.rec.Outdated && (known || g.rec.Alone || c.mutant.has(mutantDetachAtOnce)) {
		g.hold.detach = false
		c.do(Detached{Guest: g.rec.Guest, Epoch: g.rec.Epoch})
	}
	if known && g.hold.settled < g.rec.Rev {
		g.hold.settled = g.rec.Rev
		c.do(Settled{Guest: g.rec.Guest, Epoch: g.rec.Epoch, Rev: g.rec.Rev})
	}
}

// deadline is until when the acknowledgements received let the guest execute.
func (c *Core) deadline(g *guest) Time {
	h := &g.hold
	if g.rec.Owner != c.self || g.rec.Gone {
		return 0
	}
	if c.unleased(g) {
		claimed := g.rec.Bound == FenceVote && !g.rec.Alone && !c.mutant.has(mutantFencedColdStart) // perhaps, while this node was off
		if h.sure || c.peer() == "" || c.mutant.has(mutantNoColdStartWait) || (!claimed && c.now-c.start > Time(c.timing.Grace)) {
			return Forever
		}
		return 0
	}
	return max(h.peer, h.witness)
}

// unleased: the guest runs without a lease, because nobody can take it over
// while this node may execute.
func (c *Core) unleased(g *guest) bool {
	return (g.rec.Bound == "" || g.rec.Bound == FenceVote) && g.hold.arm == 0
}

// lease passes a risen deadline on.
func (c *Core) lease(g *guest) {
	h, r := &g.hold, g.rec
	d := c.deadline(g)
	if d <= c.now {
		c.explain(g, Waiting, func() string { return c.whyUnleased(g) })
		return
	}
	if c.now <= h.quiet {
		return
	}
	switch {
	case r.Taking && !h.takeSent:
		h.takeSent, h.deadline = true, d
		c.do(TakeOver{Guest: r.Guest, Epoch: r.Epoch, Deadline: d, Run: r.Run, Level: r.Level})
	case d > h.deadline || (h.arm != 0 && !h.armSent) || (d == Forever && c.now-h.renewed > Time(c.timing.Lease)/2):
		// Forever is said again and again: a guard that missed it hears it later.
		h.deadline, h.renewed = d, c.now
		h.armSent = h.arm != 0
		c.do(Renew{Guest: r.Guest, Epoch: r.Epoch, Deadline: d, Arm: h.arm})
	}
	if d == Forever {
		if c.shot.id != 0 && (c.stalled(g) || c.exposed(g)) {
			return // what matters now is the shot
		}
		c.explain(g, NoLeased, func() string {
			if r.Bound == FenceVote {
				return fmt.Sprintf("runs without a lease: %s switches this node off before it takes the guest over", c.peer())
			}
			return "runs without a lease: nobody may take it over by itself"
		})
		return
	}
	c.explain(g, Leased, func() string {
		if c.leaser(g) == c.peer() {
			return fmt.Sprintf("runs on leases acknowledged by %s", c.peer())
		}
		return fmt.Sprintf("runs on leases acknowledged by %s or %s", c.peer(), c.leaser(g))
	})
}

func (c *Core) whyUnleased(g *guest) string {
	switch {
	case g.rec.Bound == FenceVote && !g.rec.Alone:
		return fmt.Sprintf("just started: waits for %s, which may have taken the guest over meanwhile", c.peer())
	case c.leaser(g) == c.peer() && g.rec.Bound != "":
		return fmt.Sprintf("%s does not acknowledge the lease of epoch %d", c.peer(), g.rec.Epoch)
	case c.unleased(g):
		return fmt.Sprintf("just started: waits up to %v for %s to say that the guest was not promoted there", c.timing.Grace, c.peer())
	}
	return fmt.Sprintf("neither %s nor %s acknowledges the lease of epoch %d", c.peer(), c.leaser(g), g.rec.Epoch)
}

// replicaState is the engine's word about the replica on the standby.
func (c *Core) replicaState(e ReplicaState) {
	g := c.find(e.Guest)
	if g == nil || g.rec.Owner != c.self || g.rec.Epoch != e.Epoch || g.rec.Gone {
		return
	}
	if e.InSync {
		g.hold.detach = false
		if g.rec.Outdated {
			g.rec.Outdated = false
			c.changed(g)
		}
		c.do(Attached{Guest: g.rec.Guest, Epoch: g.rec.Epoch})
		return
	}
	g.hold.detach = true
	if !g.rec.Outdated {
		g.rec.Outdated = true
		c.changed(g)
	}
}

// changed gives the owner's new version of a record its number and hurries it
// to the other voters.
func (c *Core) changed(g *guest) {
	g.rec.Rev++
	c.urgent = true
}

func (c *Core) takenOver(e TakenOver) {
	g := c.find(e.Guest)
	if g == nil || g.rec.Owner != c.self || g.rec.Epoch != e.Epoch {
		return
	}
	g.rec.Taking = false
}
