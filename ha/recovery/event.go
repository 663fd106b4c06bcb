package recovery

import (
	"time"

	"vmctl/ha"
)

// Event is what happened.
type Event interface{ event() }

// Tick must come now and then: waits end with it. Next says when at the latest.
type Tick struct{}

// Guest is everything about one guest as it is now; it replaces what was told
// before. Feed the guests of the peer too: others may wait for them.
type Guest struct {
	ID     ha.GuestID
	Name   string
	Policy Policy
	Home   string // the node that it was made or last placed on; "": not known
	Run    bool   // the user wants it to run

	Mine  bool   // this node is the owner
	Epoch uint64 // of the present owner
	// Covered: its protection lets the peer start it when the owner fails.
	Covered bool
	// Taking: it was just taken over, its replica here is not used yet. If the
	// peer is up then, it was handed over.
	Taking bool
	// Resumable: while Taking, there is a checkpoint to resume.
	Resumable bool
	Running   bool // its QEMU runs here
	// Looking: it is not known yet whether an earlier agent left it running here,
	// or no lease has come yet. Nothing is decided of it before that.
	Looking bool
	// GaveUp is what an earlier planner wanted remembered; "" if nothing.
	GaveUp string
	Synced bool   // while Running: the peer's replica is complete, memory and all
	Alarm  string // what is wrong with it, "" if nothing
}

// Gone: the guest was removed.
type Gone struct{ ID ha.GuestID }

// Peer is the other node as it is now.
type Peer struct {
	Name        string
	Up          bool // it is heard
	Maintenance bool // it takes no guests
	Running     []ha.GuestID
	Alarm       string // what is wrong with that node, "" if nothing
}

// Health is what is wrong with this node, "" if nothing.
type Health struct{ Alarm string }

// Failed: a start did not come to anything.
type Failed struct {
	ID     ha.GuestID
	How    How // as the Start had it
	Reason string
}

// Ended: its QEMU has ended, or the start was broken off for no fault of the
// guest's, and it may be started again as soon as it is wanted.
type Ended struct{ ID ha.GuestID }

// Ordered: the user says start. It waits for nobody, and attempts count anew.
// Tell it before Guest has Run.
type Ordered struct{ ID ha.GuestID }

// WentHome answers a GoHome; Err is empty if the guest runs at home now.
type WentHome struct {
	ID  ha.GuestID
	Err string
}

func (Tick) event()     {}
func (Guest) event()    {}
func (Gone) event()     {}
func (Peer) event()     {}
func (Health) event()   {}
func (Failed) event()   {}
func (Ended) event()    {}
func (Ordered) event()  {}
func (WentHome) event() {}

// Timing holds the planner's own durations.
type Timing struct {
	// Wait is the longest that a guest waits for those it is after.
	Wait time.Duration
	// Gather is the longest that a guest waits, after its takeover, for guests of
	// a higher priority that the dead peer still owns.
	Gather time.Duration
	// Turn is the longest that a guest waits for starts of a higher priority.
	Turn time.Duration
	// Stable is how long a guest must run for its start to count as good.
	Stable time.Duration
	// HomeRetry is the first wait after a failed way home, and how long a guest
	// must stay with its home for its next way there to be as quick again.
	HomeRetry, HomeMost time.Duration
}

// DefaultTiming is what production uses.
func DefaultTiming() Timing {
	return Timing{
		Wait: 2 * time.Minute, Gather: 2 * time.Second, Turn: 30 * time.Second, Stable: 10 * time.Second,
		HomeRetry: time.Minute, HomeMost: time.Hour,
	}
}
