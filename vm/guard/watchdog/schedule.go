package watchdog

import (
	"time"

	"vmctl/vm/guard"
)

const (
	// margin is left for the device's own clock.
	margin = 50 * time.Millisecond
	// maxEarly bounds how long before a deadline feeding stops: a healthy node renews
	// its leases before that is reached.
	maxEarly = time.Second
	// quietFor is how long a guest that was seen stopped counts as stopped. It may have
	// been thawed right after, under a new deadline.
	quietFor = 250 * time.Millisecond
)

// timing is what follows from a device's timeout. All in ns.
type timing struct {
	timeout, early, late int64
}

// timingOf takes the device's timeout and D, what a takeover allows for stopping.
func timingOf(timeout, stop time.Duration) timing {
	wanted := timeout + margin - stop
	early := max(0, min(wanted, maxEarly))
	return timing{timeout: int64(timeout), early: int64(early), late: int64(max(0, wanted-early))}
}

// watched is one guest as its guard told last. Times are CLOCK_BOOTTIME ns.
type watched struct {
	deadline int64
	quiet    int64 // when it was last known to be stopped; 0: it may run
}

// leased says whether the guest needs the device at all.
func (w watched) leased() bool { return w.deadline != guard.Forever }

// fedUntil is the last moment at which the guest allows feeding.
func (w watched) fedUntil(t timing) int64 {
	if !w.leased() {
		return guard.Forever
	}
	until := w.deadline - t.early
	if w.quiet != 0 {
		until = max(until, w.quiet+int64(quietFor))
	}
	return until
}

// fedUntil is the last moment at which every guest allows feeding, and whether
// there is one that needs the device.
func fedUntil(guests map[int]watched, t timing) (until int64, leased bool) {
	until = guard.Forever
	for _, w := range guests {
		until = min(until, w.fedUntil(t))
		leased = leased || w.leased()
	}
	return until, leased
}

// lookAgain is how long to wait before a guard is asked again.
func lookAgain(s guard.Status, now int64) time.Duration {
	switch {
	case s.Deadline == guard.Forever:
		return 100 * time.Millisecond
	case s.Stopped:
		return quietFor / 5
	case s.Deadline > now: // and right after the deadline, for the guard has acted then
		return min(100*time.Millisecond, time.Duration(s.Deadline-now)+2*time.Millisecond)
	}
	return 5 * time.Millisecond
}
