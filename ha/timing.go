package ha

import (
	"fmt"
	"math"
	"time"
)

// Time is a reading of the local CLOCK_BOOTTIME in nanoseconds. Readings of
// two hosts are never compared.
type Time int64

// Forever is the deadline of a guest that needs no lease.
const Forever Time = math.MaxInt64

// Timing holds the protocol's durations. Every voter of a cluster must use the
// same values: the safety argument relates the lease of one to the window of
// another.
type Timing struct {
	Lease     time.Duration // L: a renewal permits running until its send time + L
	Stop      time.Duration // D: the guard stops a guest within D of its deadline
	Tick      time.Duration // q: the longest regular distance between two Tick events
	Heartbeat time.Duration // distance between two heartbeats
	Grace     time.Duration // without a witness: how long a started node waits for its peer's word
	DriftPPM  int64         // r: each clock's rate is within 1 ± r, in parts per million
}

// DefaultTiming is what production uses.
func DefaultTiming() Timing {
	return Timing{
		Lease:     2 * time.Second,
		Stop:      300 * time.Millisecond,
		Tick:      100 * time.Millisecond,
		Heartbeat: 200 * time.Millisecond,
		Grace:     10 * time.Second,
		DriftPPM:  1000,
	}
}

// Window is how long after its last acknowledgement a voter must wait before
// it may help another node to take the guest over: (L+D)(1+r)/(1-r)+q, rounded
// up to a millisecond.
func (t Timing) Window() time.Duration {
	busy := int64(t.Lease + t.Stop)
	up, down := 1_000_000+t.DriftPPM, 1_000_000-t.DriftPPM
	scaled := (busy/1000*up + down - 1) / down * 1000
	w := time.Duration(scaled) + t.Tick
	return (w + time.Millisecond - 1).Truncate(time.Millisecond)
}

// Validate says whether the values can carry the protocol.
func (t Timing) Validate() error {
	switch {
	case t.Lease <= 0 || t.Stop <= 0 || t.Tick <= 0 || t.Heartbeat <= 0 || t.Grace < 0:
		return fmt.Errorf("ha timing: every duration must be positive: %+v", t)
	case t.Lease > time.Hour || t.Stop > time.Hour:
		return fmt.Errorf("ha timing: a lease of %v or a stop time of %v is beyond an hour", t.Lease, t.Stop)
	case t.DriftPPM < 0 || t.DriftPPM > 100_000:
		return fmt.Errorf("ha timing: a clock drift of %d ppm is outside 0..100000", t.DriftPPM)
	case t.Heartbeat*3 > t.Lease:
		return fmt.Errorf("ha timing: a heartbeat of %v leaves fewer than three tries in a lease of %v", t.Heartbeat, t.Lease)
	}
	return nil
}

func age(now, since Time) string {
	return fmt.Sprintf("%.1f s", float64(now-since)/1e9)
}
