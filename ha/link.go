package ha

import "sort"

// sentBeat is the send time of a heartbeat or claim; leases count from it.
type sentBeat struct {
	seq uint64
	at  Time
}

// contact is when a voter was last heard, and its incarnation.
type contact struct {
	id   NodeID
	at   Time
	back Time // when it was heard first after a silence
	boot uint64
}

// voters lists the peer and every witness in use, in a fixed order.
func (c *Core) voters() []NodeID {
	var to []NodeID
	if p := c.peer(); p != "" {
		to = append(to, p)
	}
	var witnesses []NodeID
	add := func(id NodeID) {
		if id == "" || id == FenceVote || c.cluster.has(id) {
			return
		}
		for _, w := range witnesses {
			if w == id {
				return
			}
		}
		witnesses = append(witnesses, id)
	}
	add(c.cluster.witness())
	for i := range c.guests {
		r := c.guests[i].rec
		if r.Owner == c.self {
			add(r.Bound)
		}
		if r.Promised != 0 {
			add(r.Arbiter)
		}
	}
	sort.Slice(witnesses, func(i, j int) bool { return witnesses[i] < witnesses[j] })
	return append(to, witnesses...)
}

func (c *Core) witnessInUse(id NodeID) bool {
	if id == c.cluster.witness() {
		return true
	}
	for i := range c.guests {
		r := c.guests[i].rec
		if (r.Owner == c.self && r.Bound == id) || (r.Promised != 0 && r.Arbiter == id) {
			return true
		}
	}
	return false
}

func (c *Core) nextSeq() uint64 {
	c.seq++
	old := 0
	for old < len(c.sent) && c.now-c.sent[old].at > Time(c.timing.Lease) {
		old++
	}
	c.sent = append(c.sent[old:], sentBeat{seq: c.seq, at: c.now})
	return c.seq
}

// leaseFrom is the deadline an acknowledgement of Seq gives: counted from the
// send time, because the granter counts its wait from later. 0 if too old.
func (c *Core) leaseFrom(seq uint64) Time {
	if c.mutant.has(mutantLeaseFromReceipt) {
		return c.now + Time(c.timing.Lease)
	}
	for i := range c.sent {
		if c.sent[i].seq == seq {
			return c.sent[i].at + Time(c.timing.Lease)
		}
	}
	return 0
}

func (c *Core) heard(id NodeID, boot uint64) {
	i := sort.Search(len(c.contacts), func(i int) bool { return c.contacts[i].id >= id })
	if i == len(c.contacts) || c.contacts[i].id != id {
		c.contacts = append(c.contacts, contact{})
		copy(c.contacts[i+1:], c.contacts[i:])
		c.contacts[i] = contact{id: id, back: c.now}
	} else if c.now-c.contacts[i].at > c.window {
		c.contacts[i].back = c.now
	}
	c.contacts[i].at = c.now
	c.contacts[i].boot = max(c.contacts[i].boot, boot)
}

// contact returns when a voter was last heard and its incarnation; never heard
// is the start of this core and incarnation 0.
func (c *Core) contact(id NodeID) contact {
	for _, k := range c.contacts {
		if k.id == id {
			return k
		}
	}
	return contact{id: id, at: c.start}
}

// hears says whether a voter was heard within the window.
func (c *Core) hears(id NodeID) bool {
	k := c.contact(id)
	return k.boot != 0 && c.now-k.at <= c.window
}

// calm says that the peer alone may hear this heartbeat: it acknowledges, and
// the witness knows all and was told within a third of a lease. A witness
// serves many pairs, often over a thin line.
func (c *Core) calm() bool {
	peer := c.peer()
	if peer == "" || c.urgent || c.now-c.thirdAt >= Time(c.timing.Lease)/3 || c.now-c.contact(peer).at > 2*Time(c.timing.Heartbeat) {
		return false
	}
	for i := range c.guests {
		g := &c.guests[i]
		mine := g.rec.Owner == c.self
		if g.rec.Promised != 0 || g.rec.Handed || mine && (g.rec.Gone || g.rec.Bound != c.wants(g) || !c.both(g)) {
			return false
		}
	}
	return true
}
