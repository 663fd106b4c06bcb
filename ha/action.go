package ha

// Action is what the caller must do. A list is executed in its order. The
// durable actions (Persist, PersistCluster, Erase) come first; each must be on
// stable storage before the next action runs. If one fails, the rest of the
// list is dropped and PersistFailed is the next event.
type Action interface{ action() }

// Persist stores a record durably under its guest.
type Persist struct{ Record Record }

// PersistCluster stores the configuration durably. Connect to its witness, but
// keep the connection to a former one while Send actions still name it.
type PersistCluster struct{ Cluster Cluster }

// Erase removes the stored record of a guest, if there is one.
type Erase struct{ Guest GuestID }

// Send transmits a message. It may be lost; it must not be held back and sent
// seconds later by choice.
type Send struct {
	To      NodeID
	Message Message
}

// Renew permits this node to execute the guest until Deadline (local
// CLOCK_BOOTTIME, or Forever): give it to the guard; a guest that should run
// and does not may be started under it. Arm != 0: answer with Armed once the
// guard enforces it; then, and only then, Deadline may be lower than before.
type Renew struct {
	Guest    GuestID
	Epoch    uint64
	Deadline Time
	Arm      uint64
}

// TakeOver: this node owns the guest now; resume it from the replica under the
// given lease (only if Run), then answer TakenOver. Emitted again after a
// restart of the agent that came in between.
type TakeOver struct {
	Guest    GuestID
	Epoch    uint64
	Deadline Time
	Run      bool
	Level    Level
}

// Yield: the guest belongs to Owner at Epoch; kill its QEMU here before any
// later action of the list, and become its standby.
type Yield struct {
	Guest GuestID
	Epoch uint64
	Owner NodeID
}

// Detached: the standby's replica is durably outdated; the engine may
// acknowledge writes that it lacks.
type Detached struct {
	Guest GuestID
	Epoch uint64
}

// Attached: the standby's replica counts as complete from now on.
type Attached struct {
	Guest GuestID
	Epoch uint64
}

// Settled: the owner's latest change of the record (Rev) is known to a second
// voter, or needs none. After SetRun(false) this means: no takeover will revive
// the guest.
type Settled struct {
	Guest GuestID
	Epoch uint64
	Rev   uint64
}

// Forgotten: the owner removed the guest; delete its replica.
type Forgotten struct{ Guest GuestID }

// Fence: switch the peer's host off and answer with Fenced and the same ID. One
// is outstanding at a time; a device that does not confirm is no success.
type Fence struct {
	ID   uint64
	Node NodeID
}

// Reply answers a request. Code "" is success.
type Reply struct {
	ID   uint64
	Code Code
	Text string
}

// Code classifies a refusal.
type Code string

// Reply codes.
const (
	OK              Code = ""
	CodeNotFound    Code = "not-found"
	CodeConflict    Code = "conflict"    // not in the present state
	CodeNotOwner    Code = "not-owner"   // ask the owner
	CodeUnsafe      Code = "unsafe"      // could run the guest twice
	CodeOutdated    Code = "outdated"    // would lose acknowledged writes
	CodeUnreachable Code = "unreachable" // no answer from a voter that is needed
	CodeStorage     Code = "storage"     // the record could not be stored
	CodeInvalid     Code = "invalid"
)

// Alarm is raised once when a condition begins (On) and once when it ends.
type Alarm struct {
	Kind  AlarmKind
	Guest GuestID // empty for the node's own
	On    bool
	Text  string
}

// Note explains a decision or why none was taken, whenever the verdict changes.
type Note struct {
	Guest   GuestID
	Verdict Verdict
	Reason  string
}

func (Persist) action()        {}
func (PersistCluster) action() {}
func (Erase) action()          {}
func (Send) action()           {}
func (Renew) action()          {}
func (TakeOver) action()       {}
func (Yield) action()          {}
func (Detached) action()       {}
func (Attached) action()       {}
func (Settled) action()        {}
func (Forgotten) action()      {}
func (Fence) action()          {}
func (Reply) action()          {}
func (Alarm) action()          {}
func (Note) action()           {}
