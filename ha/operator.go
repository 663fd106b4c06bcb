package ha

import (
	"fmt"
	"time"
)

// promote is an operator's order. With a witness in reach the witness still
// decides about leases; without one, the operator's word is all there is.
func (c *Core) promote(e Promote) {
	g := c.find(e.Guest)
	refuse := func(code Code, format string, args ...any) {
		c.reply(e.ID, code, "not promoting: "+fmt.Sprintf(format, args...))
	}
	if g == nil || g.rec.Gone {
		refuse(CodeNotFound, "this node does not know the guest")
		return
	}
	third := c.cluster.witness()
	witness := third != "" && c.hears(third)
	switch {
	case g.rec.Owner == c.self && c.deadline(g) > c.now && !c.stalled(g):
		refuse(CodeConflict, "the guest already belongs to this node and may run")
	case !e.ConfirmPeerOff:
		refuse(CodeUnsafe, "it could run twice unless %s is off: switch it off, then confirm that", c.peer())
	case c.peer() != "" && c.hears(c.peer()):
		refuse(CodeUnsafe, "%s is alive, heard %s ago", c.peer(), age(c.now, c.contact(c.peer()).at))
	case c.now-c.start <= c.window:
		refuse(CodeUnsafe, "this node just started; try again in %v", time.Duration(c.window-(c.now-c.start)))
	case g.rec.Owner == c.self && witness:
		refuse(CodeUnsafe, "the witness %s answers and does not acknowledge the lease", third)
	case g.rec.Owner == c.self:
		c.unbind(g, e)
	case (g.rec.Outdated || !g.cand.ready) && !e.AcceptOutdated:
		refuse(CodeOutdated, "the replica here lacks acknowledged writes or is not complete")
	case witness && g.rec.Promised == 0:
		g.cand.force, g.cand.forceID, g.cand.accept = true, e.ID, e.AcceptOutdated
		g.cand.askFirst, g.cand.forceEnd = 0, c.now+2*Time(c.timing.Lease)
	case witness:
		refuse(CodeConflict, "a takeover is already under way")
	default:
		c.seize(g, e)
	}
}

// seize takes the guest on the operator's word alone.
func (c *Core) seize(g *guest, e Promote) {
	former := g.rec.Owner
	heard := age(c.now, c.contact(former).at)
	arbiter := NodeID("")
	if c.cluster.Mode == ModeFence {
		arbiter = FenceVote
	}
	epoch := g.rec.Epoch + 1
	if c.mutant.has(mutantSeizeKeepsEpoch) {
		epoch--
	}
	c.become(g, epoch, arbiter)
	g.hold.sure, g.hold.offRev = true, g.rec.Rev
	c.explain(g, Promoted, func() string {
		return fmt.Sprintf("an operator confirmed that %s is off: promoted at epoch %d", former, g.rec.Epoch)
	})
	c.reply(e.ID, OK, fmt.Sprintf("promoted at epoch %d; what %s did after it was last heard, %s ago, is not here", g.rec.Epoch, former, heard))
}

// unbind lets this node's own guest run on although nobody acknowledges its
// lease, on the operator's word that the peer is off.
func (c *Core) unbind(g *guest, e Promote) {
	g.hold.sure = true
	if g.rec.Bound == FenceVote {
		g.hold.offRev, c.shot.off = g.rec.Rev, c.now
	} else {
		g.rec.Bound, g.rec.Arbiter = "", ""
		g.hold.arm, g.hold.armFor, g.hold.armSent = 0, "", false
		c.changed(g)
	}
	c.explain(g, Promoted, func() string { return "an operator confirmed that the peer is off: runs without a lease" })
	c.reply(e.ID, OK, "runs without a lease")
}

func (c *Core) own(e Own) {
	switch {
	case e.Record.Guest == "":
		c.reply(e.ID, CodeInvalid, "a guest needs an id")
		return
	case c.find(e.Record.Guest) != nil:
		c.reply(e.ID, CodeConflict, "the guest is known already")
		return
	}
	g := c.add(e.Record.Guest)
	level := e.Record.Level
	if level == "" {
		level = LevelNone
	}
	g.rec = Record{
		Guest: e.Record.Guest, Epoch: 1, Rev: 1, Owner: c.self, Standby: c.peer(),
		Run: e.Record.Run, Level: level, Outdated: true,
	}
	g.rec.Arbiter = c.wants(g) // it never ran without a lease, so no arming
	g.rec.Bound = g.rec.Arbiter
	g.hold.sure, g.hold.since = true, c.now
	g.hold.offRev = g.rec.Rev // nobody else knows of it
	c.urgent = true
	c.reply(e.ID, OK, "")
}

// mine finds a guest this node owns, or answers the request.
func (c *Core) mine(id uint64, guest GuestID) *guest {
	g := c.find(guest)
	switch {
	case g == nil || g.rec.Gone:
		c.reply(id, CodeNotFound, "no such guest")
	case g.rec.Owner != c.self:
		c.reply(id, CodeNotOwner, fmt.Sprintf("the guest belongs to %s", g.rec.Owner))
	default:
		return g
	}
	return nil
}

func (c *Core) setRun(e SetRun) {
	if g := c.mine(e.ID, e.Guest); g != nil {
		if g.rec.Run != e.Run {
			g.rec.Run = e.Run
			c.changed(g)
		}
		c.reply(e.ID, OK, "")
	}
}

func (c *Core) setLevel(e SetLevel) {
	g := c.mine(e.ID, e.Guest)
	if g == nil {
		return
	}
	switch e.Level {
	case LevelNone, LevelRestart, LevelResume, LevelFT:
	default:
		c.reply(e.ID, CodeInvalid, fmt.Sprintf("unknown protection level %q", e.Level))
		return
	}
	if g.rec.Level != e.Level {
		g.rec.Level = e.Level
		c.changed(g)
	}
	c.reply(e.ID, OK, "")
}

// forget leaves a tombstone; bury removes it when every voter has it.
func (c *Core) forget(e Forget) {
	g := c.mine(e.ID, e.Guest)
	if g == nil {
		return
	}
	g.rec.Gone, g.rec.Run, g.rec.Taking = true, false, false
	c.changed(g)
	c.reply(e.ID, OK, "")
}

func (c *Core) bury() {
	for i := len(c.guests) - 1; i >= 0; i-- {
		g := &c.guests[i]
		r, h := g.rec, &g.hold
		if !r.Gone || r.Owner != c.self {
			continue
		}
		witness := c.leaser(g)
		if witness == FenceVote || c.cluster.has(witness) {
			witness = ""
		}
		peer := c.peer() == "" || h.peerRev == r.Rev
		if c.mutant.has(mutantBuryEarly) || peer && (witness == "" || (h.from == witness && h.witnessRev == r.Rev)) {
			c.clearAlarms(r.Guest)
			// What the peer said before it knew of the removal may still be on its
			// way, and would bring the guest back as one of the peer's.
			c.fresh(c.peer(), h.goneBoot, h.goneBeat)
			c.remove(r.Guest)
		}
	}
}
