package ha

// Event is what happened. Requests carry an ID that comes back in exactly one
// Reply; ID 0 asks for no reply.
type Event interface{ event() }

// Tick must come at least every Timing.Tick.
type Tick struct{}

// Received: a message came in and its sender's identity was checked.
type Received struct{ Message Message }

// PersistFailed: an action of the durable kind (Persist, PersistCluster,
// Erase) of the previous list failed and the rest of that list was dropped. It
// must be the very next event. The core goes back to its state before that
// list and says nothing to anyone before the store works again.
type PersistFailed struct{ Err string }

// PeerLink: the connection to the peer came up or broke.
type PeerLink struct{ Up bool }

// WitnessLink: the connection to the witness came up or broke.
type WitnessLink struct{ Up bool }

// Own makes this node the owner of a new guest. Record needs Guest, Run and
// Level; the core fills in the rest (epoch 1).
type Own struct {
	ID     uint64
	Record Record
}

// Forget removes a guest this node owns; the caller has stopped it. Before
// Settled follows, a takeover by a standby that cannot hear may still revive it.
type Forget struct {
	ID    uint64
	Guest GuestID
}

// SetRun changes whether the user wants the guest running.
type SetRun struct {
	ID    uint64
	Guest GuestID
	Run   bool
}

// SetLevel changes the protection level.
type SetLevel struct {
	ID    uint64
	Guest GuestID
	Level Level
}

// SetCluster changes the configuration on one node; the other learns it from
// heartbeats. Gen must be higher than the present one. A change of nodes is
// refused while guests live under a witness: set ModeNone first.
type SetCluster struct {
	ID      uint64
	Cluster Cluster
}

// ReplicaState is the replication engine's word at the owner. InSync=false asks
// for permission to acknowledge writes the standby lacks: wait for Detached.
// InSync=true says the standby has everything, and from this event on the
// engine acknowledges nothing the standby lacks. Epoch is the owner's epoch.
type ReplicaState struct {
	Guest  GuestID
	Epoch  uint64
	InSync bool
}

// CandidateState is the replica's word at the standby: Ready if it could be
// resumed now. Epoch and Sequence name its last complete checkpoint; a replica
// of another epoch than the guest's is not promoted. Feed it again after every
// start of the agent.
type CandidateState struct {
	Guest    GuestID
	Ready    bool
	Epoch    uint64
	Sequence uint64
}

// Armed answers a Renew with a non-zero Arm: the guard now enforces a finite
// deadline, or no QEMU of that guest exists here.
type Armed struct {
	Guest GuestID
	Arm   uint64
}

// TakenOver answers TakeOver: the guest was resumed or started from its
// replica (or, for Run=false, the replica was made the guest's disk).
type TakenOver struct {
	Guest GuestID
	Epoch uint64
}

// Fenced answers Fence. OK only if the device confirmed that the node is off,
// after the Fence was ordered.
type Fenced struct {
	ID  uint64
	OK  bool
	Err string
}

// Promote is an operator's order to run the guest here. ConfirmPeerOff is the
// operator's word that the owner is off and stays off until it can be reached.
// AcceptOutdated allows a replica that is known to lack writes or not ready.
type Promote struct {
	ID             uint64
	Guest          GuestID
	ConfirmPeerOff bool
	AcceptOutdated bool
}

// Handover gives a guest to the peer. The caller has stopped it for good here
// (its guard revoked) and the peer has all of it: a replica in sync, or the
// whole state of a finished migration (Streamed).
type Handover struct {
	ID       uint64
	Guest    GuestID
	Streamed bool
}

func (Tick) event()           {}
func (Received) event()       {}
func (PersistFailed) event()  {}
func (PeerLink) event()       {}
func (WitnessLink) event()    {}
func (Own) event()            {}
func (Forget) event()         {}
func (SetRun) event()         {}
func (SetLevel) event()       {}
func (SetCluster) event()     {}
func (ReplicaState) event()   {}
func (CandidateState) event() {}
func (Armed) event()          {}
func (TakenOver) event()      {}
func (Fenced) event()         {}
func (Promote) event()        {}
func (Handover) event()       {}

// requestID is the ID to answer, 0 for events that are no requests.
func requestID(ev Event) uint64 {
	switch e := ev.(type) {
	case Own:
		return e.ID
	case Forget:
		return e.ID
	case SetRun:
		return e.ID
	case SetLevel:
		return e.ID
	case SetCluster:
		return e.ID
	case Promote:
		return e.ID
	case Handover:
		return e.ID
	}
	return 0
}

// keepsOn says whether the core itself must process the event again after a
// failed persist: the local engine will not repeat it.
func keepsOn(ev Event) bool {
	switch ev.(type) {
	case ReplicaState, CandidateState, Armed, TakenOver, Fenced, PeerLink, WitnessLink:
		return true
	}
	return false
}
