package ha

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
	// Arbiter is the witness whose vote, together with the standby's, moves the
	// guest. Empty: the owner runs without a lease, and nobody may claim.
	Arbiter  NodeID
	Run      bool // the user wants it running
	Level    Level
	Outdated bool // the standby's replica lacks writes; true until the owner clears it
	Gone     bool // removed: a tombstone until every voter knows

	// The rest is local to the voter that stores the record, never sent.

	// Promised is the epoch this standby claims; until the claim is answered it
	// acknowledges no lease of a lower one. 0: none.
	Promised uint64
	// Bound is the witness under whose leases this owner still lives. It leaves
	// Arbiter's value only after another voter has stored the new Arbiter.
	Bound NodeID
	// Taking: this owner has not yet finished resuming the guest from its replica.
	Taking bool
	// Handed: this former owner gave the guest away and repeats so until the
	// new owner is heard.
	Handed bool
}

// shared is the part of a record that travels.
func (r Record) shared() Record {
	r.Promised, r.Bound, r.Taking, r.Handed = 0, "", false, false
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
	ModeFence   Mode = "fence"   // reserved: a fencing agent; refused for now
)

// Cluster is the configuration both nodes share. It travels in heartbeats; the
// newer one, by (Gen, By), wins.
type Cluster struct {
	Gen     uint64 // rises at every change
	By      NodeID // who made the change
	Nodes   [2]NodeID
	Mode    Mode
	Witness NodeID // with ModeWitness
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

// arbiter is the witness the nodes should live under, or none.
func (c Cluster) arbiter() NodeID {
	if c.Mode != ModeWitness || c.Nodes[0] == "" || c.Nodes[1] == "" {
		return ""
	}
	return c.Witness
}
