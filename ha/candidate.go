package ha

import "fmt"

// stand is the standby's step for one guest of its peer.
func (c *Core) stand(g *guest) {
	if g.rec.Gone || g.rec.Owner != c.peer() {
		return
	}
	if g.rec.Promised != 0 {
		c.pursue(g)
		return
	}
	verdict, reason := c.obstacle(g)
	if verdict != "" {
		c.explain(g, verdict, func() string { return "not taking over: " + reason() })
		c.endForce(g, CodeUnsafe, "")
		g.cand = g.cand.ended()
		return
	}
	switch c.cluster.arbiter(g.rec.Owner) {
	case FenceVote:
		c.aim(g)
		return
	case c.self:
		c.takeByBias(g)
		return
	}
	c.ask(g)
}

// ask puts the question to the witness, again and again.
func (c *Core) ask(g *guest) {
	if g.cand.force && c.now > g.cand.forceEnd {
		c.endForce(g, CodeUnreachable, fmt.Sprintf("the witness %s did not answer", c.cluster.witness()))
		g.cand = g.cand.ended()
		return
	}
	if g.cand.askFirst != 0 && c.now-g.cand.askedAt < Time(c.timing.Heartbeat) {
		return
	}
	seq := c.nextSeq()
	if g.cand.askFirst == 0 {
		g.cand.askFirst = seq
		c.explain(g, Asking, func() string {
			return fmt.Sprintf("%s's lease is over here; asking %s about epoch %d", g.rec.Owner, c.cluster.witness(), g.rec.Epoch+1)
		})
	}
	g.cand.askedAt = c.now
	c.do(Send{To: c.cluster.witness(), Message: Ask{
		From: c.self, Boot: c.boot, Seq: seq, Guest: g.rec.Guest, Epoch: g.rec.Epoch + 1, Force: g.cand.force,
	}})
}

func why(verdict Verdict, text string) (Verdict, func() string) {
	return verdict, func() string { return text }
}

// obstacle is what keeps this standby from asking for the guest; "" is nothing.
// What lasts comes before what passes, so that the word says what to repair.
func (c *Core) obstacle(g *guest) (Verdict, func() string) {
	r, third := &g.rec, c.cluster.arbiter(g.rec.Owner)
	if third == "" && c.cluster.Mode == ModeBias {
		return NoThirdVote, func() string {
			return fmt.Sprintf("only %s takes guests over; an operator may promote it", c.cluster.Bias)
		}
	}
	if third == "" {
		return why(NoThirdVote, "there is no third vote; an operator may promote it")
	}
	if !g.cand.force {
		if verdict, reason := c.flagObstacle(g, third); verdict != "" {
			return verdict, reason
		}
	}
	if verdict, reason := c.leaseObjection(g); verdict != "" {
		return verdict, reason
	}
	// An owner that says anything at all just now is alive, whatever became of
	// its heartbeats.
	if at := c.contact(r.Owner).at; c.hears(r.Owner) && (c.now-c.peerBeat <= c.window || c.now-at <= 2*Time(c.timing.Heartbeat)) {
		return LeaseAlive, func() string { return fmt.Sprintf("%s was heard %s ago", r.Owner, age(c.now, c.contact(r.Owner).at)) }
	}
	if third == FenceVote || third == c.self {
		return c.aloneObstacle(g)
	}
	if !c.hears(third) {
		return NoWitness, func() string { return fmt.Sprintf("%s is silent, and so is the witness %s", r.Owner, third) }
	}
	if k := c.contact(third); !g.cand.force && g.rec.Promised == 0 && c.now-k.back < 2*Time(c.timing.Heartbeat) {
		// After an outage of the network, the owner is about to be back too, with
		// its memory; a takeover would roll it back.
		return NoWitness, func() string {
			return fmt.Sprintf("the witness %s answers again; %s has a moment to do so too", third, r.Owner)
		}
	}
	return "", nil
}

// flagObstacle is what an operator's order overrides.
func (c *Core) flagObstacle(g *guest, third NodeID) (Verdict, func() string) {
	r := &g.rec
	switch {
	case !r.Run:
		return why(Stopped, "the user wants it stopped")
	case r.Level == LevelNone || r.Level == "":
		return why(Unprotected, "its protection level is none")
	case r.Standby != c.self:
		return why(NotStandby, "this node is not its standby")
	case r.Arbiter != third:
		return OwnerUnleased, func() string {
			if third == FenceVote {
				return fmt.Sprintf("%s has not agreed yet that it may be taken over after a shot", r.Owner)
			}
			return fmt.Sprintf("%s does not run it on leases of %s", r.Owner, third)
		}
	case r.Outdated && !c.mutant.has(mutantOutdatedClaims):
		return why(ReplicaOutdated, "the replica here lacks acknowledged writes")
	case !g.cand.ready:
		return why(ReplicaNotReady, "the replica here is not complete")
	case g.cand.epoch != r.Epoch:
		return ReplicaNotReady, func() string {
			return fmt.Sprintf("the replica here is of epoch %d, the guest of epoch %d", g.cand.epoch, r.Epoch)
		}
	}
	return "", nil
}

func (c *Core) candidateState(e CandidateState) {
	g := c.find(e.Guest)
	if g == nil || g.rec.Owner == c.self {
		return
	}
	g.cand.ready, g.cand.epoch, g.cand.sequence = e.Ready, e.Epoch, e.Sequence
}

// answered handles the witness' answer to a question: the promise, and the
// claim that it allows.
func (c *Core) answered(m AskReply) {
	g := c.find(m.Guest)
	if g == nil || m.From != c.cluster.witness() {
		return
	}
	if m.Record.newerThan(g.rec) && m.Record.Epoch > g.rec.Epoch {
		c.learn(m.Record)
		return
	}
	current := g.rec.Owner != c.self && g.rec.Promised == 0 && m.Epoch == g.rec.Epoch+1 &&
		g.cand.askFirst != 0 && m.Seq >= g.cand.askFirst
	if !current {
		return
	}
	if verdict, _ := c.obstacle(g); verdict != "" {
		return // the step's end says so
	}
	if !m.Would {
		c.explain(g, WitnessRefuses, func() string { return fmt.Sprintf("%s would not grant it: %s", m.From, m.Reason) })
		c.endForce(g, CodeUnsafe, fmt.Sprintf("the witness would not grant it: %s", m.Reason))
		return
	}
	if g.cand.force && !g.cand.accept && m.Record.Outdated {
		c.endForce(g, CodeOutdated, fmt.Sprintf("not promoting: %s knows that the replica here lacks acknowledged writes", m.From))
		g.cand = g.cand.ended()
		return
	}
	if c.mutant.has(mutantAskIsEnough) {
		c.become(g, m.Epoch, m.From)
		return
	}
	g.rec.Promised = m.Epoch
	if c.mutant.has(mutantNoPromise) {
		g.rec.Promised = 0
	}
	c.claim(g, m.FromBoot)
}

// claim begins a new claim. Before it leaves, the promise is durable.
func (c *Core) claim(g *guest, to uint64) {
	c.claims++
	g.cand.claimID, g.cand.claimTo = c.claims, to
	c.sendClaim(g)
	c.explain(g, Claiming, func() string {
		return fmt.Sprintf("claiming epoch %d at %s; no lease of %s is acknowledged until it answers", g.rec.Epoch+1, g.rec.Arbiter, g.rec.Owner)
	})
}

func (c *Core) sendClaim(g *guest) {
	g.cand.claimAt = c.now
	c.do(Send{To: c.claimWitness(g), Message: Claim{
		From: c.self, Boot: c.boot, Seq: c.nextSeq(), ID: g.cand.claimID, To: g.cand.claimTo,
		Guest: g.rec.Guest, Prior: g.rec.Epoch, Epoch: g.rec.Epoch + 1, Force: g.cand.force,
	}})
}

// claimWitness decides a promise: the witness under which the owner lives, or,
// for an operator's order about an owner without leases, the configured one.
func (c *Core) claimWitness(g *guest) NodeID {
	if a := g.rec.Arbiter; a != "" && a != FenceVote && !c.cluster.has(a) {
		return a
	}
	return c.cluster.witness()
}

// pursue repeats the outstanding claim, or begins a new one for a promise of an
// earlier incarnation: its answer ends that one's claims too.
func (c *Core) pursue(g *guest) {
	w := c.contact(c.claimWitness(g))
	switch {
	case w.boot == 0:
	case g.cand.claimID == 0:
		c.claim(g, w.boot)
	case c.now-g.cand.claimAt >= Time(c.timing.Heartbeat):
		c.sendClaim(g)
	}
}

func (c *Core) claimAnswered(m ClaimReply) {
	g := c.find(m.Guest)
	if g == nil {
		return
	}
	if g.rec.Owner == c.self || g.cand.claimID == 0 || m.ID != g.cand.claimID || m.Epoch != g.rec.Epoch+1 {
		c.learn(m.Record)
		return
	}
	if m.OK {
		c.won(g, m)
		return
	}
	g.rec.Promised = 0
	c.endForce(g, CodeUnsafe, fmt.Sprintf("the witness refused: %s", m.Reason))
	g.cand = g.cand.ended()
	c.explain(g, Withdrawn, func() string { return fmt.Sprintf("%s refused the claim: %s", m.From, m.Reason) })
	c.learn(m.Record)
}

func (c *Core) won(g *guest, m ClaimReply) {
	former := g.rec.Owner
	c.endForce(g, OK, fmt.Sprintf("took over at epoch %d", m.Epoch))
	c.become(g, m.Epoch, m.From)
	g.hold.from, g.hold.witness = m.From, c.leaseFrom(m.Seq)
	c.explain(g, TookOver, func() string {
		return fmt.Sprintf("took over from %s: %s granted epoch %d", former, m.From, m.Epoch)
	})
}

// endForce answers the operator's order, if one waits. An empty text is filled
// with what stands in the way now.
func (c *Core) endForce(g *guest, code Code, text string) {
	if !g.cand.force {
		return
	}
	if text == "" {
		if verdict, reason := c.obstacle(g); verdict != "" {
			text = reason()
		}
	}
	c.reply(g.cand.forceID, code, text)
	g.cand.force, g.cand.forceID = false, 0
}
