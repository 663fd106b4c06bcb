package ha

import (
	"fmt"
	"time"
)

// turn moves an owned guest between "nobody may claim it" and an arbiter, one
// safe step at a time. A change from one arbiter to another passes through
// "nobody". See DESIGN.md, Changing the third vote.
func (c *Core) turn(g *guest) {
	want, h, r := c.wants(g), &g.hold, &g.rec
	switch {
	case r.Bound == "" && want == "":
		h.arm, h.armFor, h.armSent = 0, "", false
	case r.Bound == "":
		c.bind(g, want)
	case r.Bound == want:
		if r.Arbiter != want {
			r.Arbiter = want
			c.changed(g)
		}
	case r.Arbiter != "":
		r.Arbiter = "" // nobody may claim from here on, once a voter has stored it
		c.changed(g)
		if c.mutant.has(mutantForeverAtOnce) {
			r.Bound = ""
		}
	case c.known(g):
		r.Bound = ""
	}
}

// wants is the arbiter under which a guest should live. One that nobody may
// take over needs no lease: it runs on when peer and witness are both lost.
func (c *Core) wants(g *guest) NodeID {
	if g.rec.Level == LevelNone {
		return ""
	}
	return c.cluster.arbiter(c.self)
}

// bind begins to live under a witness: it must have stored the present record
// and granted a lease, and the guard must enforce that lease, before anyone may
// hear that the guest can be claimed.
func (c *Core) bind(g *guest, want NodeID) {
	h := &g.hold
	if h.arm != 0 && h.armFor == want {
		return
	}
	h.arm, h.armFor, h.armSent = 0, "", false
	stored, lease := h.from == want && h.witnessRev == g.rec.Rev, h.witness
	switch want {
	case FenceVote: // no lease: whoever claims has switched this node off
		g.rec.Bound, g.rec.Arbiter = want, want
		c.changed(g)
		return
	case c.peer():
		stored, lease = h.peerRev == g.rec.Rev, h.peer
	}
	if !stored || lease-c.now <= Time(c.timing.Lease)/4 {
		return
	}
	if c.mutant.has(mutantArmAtOnce) {
		g.rec.Bound, g.rec.Arbiter = want, want
		c.changed(g)
		return
	}
	c.arms++
	h.arm, h.armFor = c.arms, want
}

func (c *Core) armed(e Armed) {
	g := c.find(e.Guest)
	if g == nil || g.rec.Owner != c.self || g.hold.arm == 0 || g.hold.arm != e.Arm {
		return
	}
	h := &g.hold
	g.rec.Bound, g.rec.Arbiter = h.armFor, h.armFor
	h.arm, h.armFor, h.armSent = 0, "", false
	c.changed(g)
}

func (c *Core) setCluster(e SetCluster) {
	if text := c.clusterRefusal(e.Cluster); text != "" {
		c.reply(e.ID, CodeConflict, text)
		return
	}
	if !e.Cluster.newerThan(c.cluster) {
		c.reply(e.ID, CodeConflict, fmt.Sprintf("generation %d is not newer than %d", e.Cluster.Gen, c.cluster.Gen))
		return
	}
	c.changeCluster(e.Cluster)
	c.reply(e.ID, OK, "")
}

// clusterRefusal says why a configuration cannot be taken over now. The peer
// must not be replaced while a former one could still claim something.
func (c *Core) clusterRefusal(n Cluster) string {
	switch {
	case !n.has(c.self):
		return fmt.Sprintf("%s is not among the nodes %v", c.self, n.Nodes)
	case n.Mode != ModeNone && n.Mode != ModeWitness && n.Mode != ModeFence && n.Mode != ModeBias:
		return fmt.Sprintf("the mode %q is not known", n.Mode)
	case n.Mode == ModeBias && !n.has(n.Bias):
		return fmt.Sprintf("the mode bias needs one of the nodes %v, not %q", n.Nodes, n.Bias)
	case n.FenceDelay < 0 || n.FenceDelay > time.Hour:
		return fmt.Sprintf("a fence delay of %v is outside 0..1h", n.FenceDelay)
	case n.Mode == ModeWitness && n.Witness == "":
		return "the mode witness needs a witness"
	case n.has(n.Witness):
		return fmt.Sprintf("%s cannot be a node and the witness", n.Witness)
	}
	was := c.peer()
	if was == "" || n.peerOf(c.self) == was {
		return ""
	}
	for i := range c.guests {
		r := c.guests[i].rec
		switch {
		case r.Gone:
		case r.Owner != c.self:
			return fmt.Sprintf("%s still owns guest %s: move or remove it first", r.Owner, r.Guest)
		case r.Bound != "" || r.Arbiter != "" || r.Promised != 0 || c.guests[i].hold.arm != 0:
			return fmt.Sprintf("guest %s may be claimed by the peer: set the mode none first", r.Guest)
		}
	}
	return ""
}

func (c *Core) changeCluster(n Cluster) {
	was := c.peer()
	c.cluster = n
	c.urgent, c.since = true, c.now
	peer := c.peer()
	if peer == was {
		return
	}
	c.peerBeat, c.peerUp = c.now, false
	for i := range c.guests {
		g := &c.guests[i]
		if g.rec.Owner != c.self {
			continue
		}
		g.hold.sure = true
		g.hold.peer, g.hold.peerRev = 0, 0
		g.rec.Standby, g.rec.Outdated = peer, true
		c.changed(g)
	}
}
