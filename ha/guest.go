package ha

// guest is everything one voter knows about a guest. Plain values only, but for
// what a node alone has: copyGuests makes copies.
type guest struct {
	rec   Record
	saved bool // between two steps: rec is what the store holds, as far as we know

	// granted is when this voter last acknowledged a lease of the guest, at the
	// earliest its own start: acknowledgements of an earlier incarnation are not
	// known any more. So one comparison is lease wait and restart wait in one.
	granted Time

	note Verdict

	// A witness, which may vote on thousands of guests, has none.
	*part
}

// part is what a node may be to a guest: its owner, or its standby.
type part struct {
	hold holding
	cand candidacy
}

// copyGuests makes dst an independent copy of src, reusing its memory. What lies
// beyond dst's length is taken for its own: nobody else may point to its parts.
func copyGuests(dst, src []guest) []guest {
	spare := dst[:cap(dst)]
	dst = dst[:0]
	for i, g := range src {
		if own := g.part; own != nil {
			g.part = &part{}
			if i < len(spare) && spare[i].part != nil {
				g.part = spare[i].part
			}
			*g.part = *own
		}
		dst = append(dst, g)
	}
	return dst
}

// holding is the owner's side: leases and what the other voters have stored.
type holding struct {
	peer       Time   // deadline the peer's acknowledgements give
	witness    Time   // deadline the witness' acknowledgements give
	from       NodeID // the witness the two witness fields are about
	peerRev    uint64 // highest revision the peer has stored
	shotRev    uint64 // revision when the outstanding shot at the peer was ordered
	goneBoot   uint64 // with goneBeat: heartbeats of the peer from before it knew that the guest is gone
	goneBeat   uint64
	offRev     uint64 // the peer was off after this revision: it cannot claim before it hears it
	witnessRev uint64 // highest revision the witness has stored
	deadline   Time   // last one given to the guard
	renewed    Time   // when it was given
	quiet      Time   // no lease may be used before: own acknowledgements of the former owner's leases
	since      Time   // when the ownership began, if in this incarnation
	arm        uint64 // non-zero: the guard is being moved from Forever to a lease
	armFor     NodeID // the witness it is being moved to
	armSent    bool
	sure       bool // without a lease: nobody promoted the guest while we were away
	takeSent   bool // TakeOver was emitted by this incarnation
	detach     bool // the engine waits for Detached
	settled    uint64
}

// candidacy is the standby's side.
type candidacy struct {
	ready    bool
	epoch    uint64
	sequence uint64

	askFirst uint64 // Seq of this candidacy's first question, 0: none
	askedAt  Time
	claimID  uint64 // outstanding claim, 0: none
	claimTo  uint64
	claimAt  Time // last sending
	shooting bool // waits for the outstanding shot; no lease or revision is acknowledged
	force    bool
	accept   bool   // with force: the operator accepts the loss of writes
	forceID  uint64 // request to answer
	forceEnd Time
}

// ended clears all but the replica's own state.
func (c candidacy) ended() candidacy {
	return candidacy{ready: c.ready, epoch: c.epoch, sequence: c.sequence}
}
