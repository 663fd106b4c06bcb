package ha

import "time"

// NodeID names a voter: a node or the witness. A witness that lost its state
// must come back under a new id, never under the old one.
type NodeID string

// GuestID names a guest for good (its UUID): never reused for another guest.
type GuestID string

// Level is the protection the user asked for.
type Level string

// Protection levels.
const (
	LevelNone    Level = "none"
	LevelRestart Level = "restart"
	LevelResume  Level = "resume"
	LevelFT      Level = "ft"
)

// Record is what a voter knows durably about a guest. The owner writes it and
// counts its changes in Rev; the other voters copy it. (Epoch, Rev) orders all
// versions of a record, so a delayed message can never turn a flag back.
type Record struct {
	Guest GuestID
	Epoch uint64 // rises by one at every change of owner
	Rev   uint64 // rises at every change the owner makes within an epoch
	Owner NodeID // the only node that may run the guest
	// Standby holds the replica and is the only node that may claim the guest.
	Standby NodeID
	// Arbiter is whose vote, together with the standby's, moves the guest: a
	// witness, the standby itself (ModeBias) or FenceVote. Empty: the owner runs
	// without a lease, and nobody may claim.
	Arbiter  NodeID
	Run      bool // the user wants it running
	Level    Level
	Outdated bool // the standby's replica lacks writes; true until the owner clears it
	Gone     bool // removed: a tombstone until every voter knows

	// The rest is local to the voter that stores the record, never sent.

	// Promised is the epoch this standby claims; until the claim is answered it
	// acknowledges no lease of a lower one. 0: none.
	Promised uint64
	// Bound is the arbiter under which this owner still lives. It leaves
	// Arbiter's value only after another voter has stored the new Arbiter.
	Bound NodeID
	// Taking: this owner has not yet finished resuming the guest from its replica.
	Taking bool
	// Handed: this former owner gave the guest away and repeats so until the
	// new owner is heard.
	Handed bool
	// Alone: with FenceVote, no standby can claim the guest any more: it stored
	// that its replica is outdated, or was switched off since. A started owner
	// may then run the guest without having heard the peer.
	Alone bool
}

// FenceVote stands in Arbiter for a confirmed switching-off of the owner.
const FenceVote NodeID = "!fence"

// shared is the part of a record that travels.
func (r Record) shared() Record {
	r.Promised, r.Bound, r.Taking, r.Handed, r.Alone = 0, "", false, false, false
	return r
}

func (r Record) newerThan(o Record) bool {
	return r.Epoch > o.Epoch || (r.Epoch == o.Epoch && r.Rev > o.Rev)
}

// Mode says who is the third vote.
type Mode string

// Modes of a cluster.
const (
	ModeNone    Mode = "none"    // nobody: detect, alert, never promote alone
	ModeWitness Mode = "witness" // the witness
	ModeFence   Mode = "fence"   // a fencing device that confirms that the owner is off
	ModeBias    Mode = "bias"    // one of the two nodes, chosen beforehand
)

// Cluster is the configuration both nodes share. It travels in heartbeats; the
// newer one, by (Gen, By), wins.
type Cluster struct {
	Gen     uint64 // rises at every change
	By      NodeID // who made the change
	Nodes   [2]NodeID
	Mode    Mode
	Witness NodeID // with ModeWitness
	Bias    NodeID // with ModeBias: the only node that takes guests over
	// FenceDelay, with ModeFence, is how much longer than the other one of the
	// nodes waits before it shoots, so that a cut cable does not end with both
	// off. It should be longer than a shot takes.
	FenceDelay time.Duration
}

func (c Cluster) newerThan(o Cluster) bool {
	return c.Gen > o.Gen || (c.Gen == o.Gen && c.By > o.By)
}

func (c Cluster) has(n NodeID) bool { return n != "" && (c.Nodes[0] == n || c.Nodes[1] == n) }

func (c Cluster) peerOf(self NodeID) NodeID {
	if c.Nodes[0] == self {
		return c.Nodes[1]
	}
	if c.Nodes[1] == self {
		return c.Nodes[0]
	}
	return ""
}

// witness is the third voter, or none.
func (c Cluster) witness() NodeID {
	if c.Mode != ModeWitness || c.Nodes[0] == "" || c.Nodes[1] == "" {
		return ""
	}
	return c.Witness
}

// arbiter is what belongs into Record.Arbiter of an owner's guests.
func (c Cluster) arbiter(owner NodeID) NodeID {
	switch {
	case c.Nodes[0] == "" || c.Nodes[1] == "":
		return ""
	case c.Mode == ModeFence:
		return FenceVote
	case c.Mode == ModeBias && owner != c.Bias:
		return c.Bias
	}
	return c.witness()
}
