package recovery

import (
	"time"

	"vmctl/ha"
)

// Action is what the caller must do, in list order.
type Action interface{ action() }

// Start: start the guest, once, as soon as the lease allows. Answer with Guest
// (Running), Failed or Ended, though the user may not want it any more; drop it
// if the epoch has changed.
type Start struct {
	ID    ha.GuestID
	Epoch uint64
	How   How // Resume or Restart
	// Counts: an end by a failure within Timing.Stable is a Failed one, not one
	// for the guest's restart policy.
	Counts bool
	Reason string
}

// FailedBy says whether a guest that ran so long before it failed has failed to
// start.
func (s Start) FailedBy(ran time.Duration, t Timing) bool { return s.Counts && ran < t.Stable }

// Remember stores durably, for the next planner, why a guest was given up; ""
// that it is not.
type Remember struct {
	ID     ha.GuestID
	GaveUp string
}

// GoHome: hand the running guest over to its home, live. Answer with WentHome.
type GoHome struct {
	ID ha.GuestID
	To string
}

// Alarm is raised once when a condition begins (On) and once when it ends.
type Alarm struct {
	Kind Word
	ID   ha.GuestID
	On   bool
	Text string
}

// Note says why something is done, or not done yet, whenever that changes.
type Note struct {
	ID   ha.GuestID
	Word Word
	Text string
}

// Word is the machine word of an alarm or a note.
type Word string

// Words.
const (
	// alarms
	GaveUpWord Word = "recovery-failed" // it failed on every start
	LeftWord   Word = "recovery-left"   // its policy leaves it to the user

	// notes
	Waits      Word = "recovery-waits"     // for other guests
	Starts     Word = "recovery-starts"    // a start begins
	OutOfOrder Word = "recovery-unordered" // starts although a guest it is after does not run
	FellBack   Word = "resume-failed"      // booted although it had a checkpoint
	BacksOff   Word = "recovery-retry"     // a start failed, another follows
	HomeWaits  Word = "failback-waits"     // what the way home waits for
	HomeGoes   Word = "failback-starts"    // it is handed over to its home
	HomeDone   Word = "failback-done"      // it is there
	HomeFailed Word = "failback-failed"    // it is not
)

func (Start) action()    {}
func (Remember) action() {}
func (GoHome) action()   {}
func (Alarm) action()    {}
func (Note) action()     {}
