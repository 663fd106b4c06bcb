package ha

import "fmt"

// renew is the granter's rule for one renewal. It is the same for a node and
// for the witness.
func (v *voter) renew(from NodeID, r Record) Grant {
	r = r.shared()
	grant := Grant{Guest: r.Guest, Epoch: r.Epoch, Rev: r.Rev}
	g := v.find(r.Guest)
	switch {
	case r.Owner != from:
		grant.Verdict = WrongOwner
		return grant
	case g == nil && r.Gone:
		grant.OK, grant.Verdict = true, Removed
		return grant
	case g == nil:
		g = v.add(r.Guest)
		g.rec = r
	default:
		if verdict := v.refuses(g, from, r); verdict != "" {
			grant.Verdict, grant.Record = verdict, g.rec.shared()
			return grant
		}
		if r.newerThan(g.rec) || v.mutant.has(mutantOldRevision) {
			g.adopt(r)
		}
	}
	grant.OK, grant.Verdict = true, Granted
	if !g.rec.Gone && !v.mutant.has(mutantGrantNotNoted) {
		g.granted = v.now
	}
	return grant
}

func (v *voter) refuses(g *guest, from NodeID, r Record) Verdict {
	switch {
	case r.Epoch < g.rec.Epoch:
		return StaleEpoch
	case r.Epoch == g.rec.Epoch && from != g.rec.Owner:
		return WrongOwner
	case (g.rec.Promised > r.Epoch || (g.part != nil && g.cand.shooting)) && !v.mutant.has(mutantAckAfterPromise):
		return PromisedAway
	case r.Epoch == g.rec.Epoch && r.Rev < g.rec.Rev && !v.mutant.has(mutantOldRevision):
		return StaleRevision
	}
	return ""
}

// adopt copies what the owner wrote and keeps what is local, as long as the
// epoch stays.
func (g *guest) adopt(r Record) {
	local := g.rec
	g.rec = r.shared()
	if r.Epoch == local.Epoch {
		g.rec.Promised, g.rec.Bound = local.Promised, local.Bound
		g.rec.Taking, g.rec.Handed, g.rec.Alone = local.Taking, local.Handed, local.Alone
	}
}

// receive handles the guests of a heartbeat and answers it.
func (v *voter) receive(hb Heartbeat) Ack {
	ack := Ack{From: v.self, FromBoot: v.boot, Boot: hb.Boot, Seq: hb.Seq}
	for _, r := range hb.Handovers {
		v.handed(hb.From, r)
	}
	for _, r := range hb.Renewals {
		ack.Grants = append(ack.Grants, v.renew(hb.From, r))
	}
	for i := range v.guests {
		rec := v.guests[i].rec
		if rec.Owner == hb.From && !rec.Gone && !lists(hb.Renewals, rec.Guest) {
			ack.Records = append(ack.Records, rec.shared())
		}
	}
	v.dropTombstones(hb)
	return ack
}

// handed stores the gift of a guest by its owner. Becoming the new owner is up
// to the node itself.
func (v *voter) handed(from NodeID, r Record) {
	g := v.find(r.Guest)
	if g == nil || r.Owner == v.self || g.rec.Owner != from || g.rec.Epoch+1 != r.Epoch {
		return
	}
	g.adopt(r)
}

// dropTombstones removes guests whose owner no longer lists them: it does so
// only after every voter has acknowledged the removal.
func (v *voter) dropTombstones(hb Heartbeat) {
	for i := len(v.guests) - 1; i >= 0; i-- {
		rec := v.guests[i].rec
		if rec.Gone && rec.Owner == hb.From && !lists(hb.Renewals, rec.Guest) {
			v.remove(rec.Guest)
		}
	}
}

func lists(renewals []Record, id GuestID) bool {
	for i := range renewals {
		if renewals[i].Guest == id {
			return true
		}
	}
	return false
}

// objection is the witness' rule for asks and claims; "" means it grants.
func (v *voter) objection(g *guest, from NodeID, epoch uint64, force bool) (Verdict, string) {
	r := g.rec
	switch {
	case r.Gone:
		return Removed, "the guest was removed"
	case r.Owner == from:
		return WrongOwner, fmt.Sprintf("%s already owns epoch %d", from, r.Epoch)
	case r.Epoch+1 != epoch:
		return WrongEpoch, fmt.Sprintf("epoch %d does not follow epoch %d of %s", epoch, r.Epoch, r.Owner)
	}
	if !force {
		switch {
		case r.Standby != from:
			return NotStandby, fmt.Sprintf("the standby is %q", r.Standby)
		case r.Arbiter != v.self:
			return OwnerUnleased, fmt.Sprintf("%s does not run on leases of this witness", r.Owner)
		case !r.Run:
			return Stopped, "the user wants the guest stopped"
		case r.Level == LevelNone:
			return Unprotected, "the protection level is none"
		case r.Outdated && !v.mutant.has(mutantOutdatedClaims):
			return ReplicaOutdated, "the replica lacks acknowledged writes"
		}
	}
	if verdict, reason := v.leaseObjection(g); verdict != "" && !(force && v.mutant.has(mutantForceBreaksLeases)) {
		return verdict, reason()
	}
	return "", ""
}

// leaseObjection holds while a lease this voter acknowledged may be alive.
func (v *voter) leaseObjection(g *guest) (Verdict, func() string) {
	switch {
	case v.now-g.granted > v.window:
		return "", nil
	case g.granted == v.start:
		return JustStarted, func() string {
			return fmt.Sprintf("%s started %s ago; leases it acknowledged before may be alive for %s", v.self, age(v.now, v.start), age(v.window, 0))
		}
	}
	return LeaseAlive, func() string {
		return fmt.Sprintf("%s's lease was renewed by %s %s ago", g.rec.Owner, v.self, age(v.now, g.granted))
	}
}
