package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"vmctl/ha"
)

// Options describe one run.
type Options struct {
	Seed   uint64
	Guests int           // 0: one or two, by the seed
	Length time.Duration // of the faulty part; 0: as long as twenty faults take
	Timing ha.Timing     // zero: production's with a Script, else by the seed
	Log    io.Writer     // nil: no log
	Script []Fault       // nil: by the seed
	Mode   ha.Mode       // "": by the seed
	Quiet  bool          // no everyday loss and delay
	Duels  bool          // only faults around the instant of a takeover
	Mix    []Kind        // nil: all kinds
	// Careless operators give a wrong word about guests that live under leases;
	// false: by the seed.
	Careless bool

	Broken Broken

	// Prepare functions see every core right after it was made.
	Prepare        func(*ha.Core)
	PrepareWitness func(*ha.Witness)
}

// Broken breaks what the protocol rests on, to show that the checks can fail.
type Broken struct {
	NoGuard         bool // the agent enforces deadlines, so a paused one does not
	ForgetfulVoter  bool // a restarted witness has lost its records
	BothStopped     bool // guard and agent of a host may be stopped together
	LateGuard       bool // after a suspension the guest runs before its guard does
	LyingStore      bool // stores lose what they called durable when the power goes
	WildClock       bool // clocks jump forward on their own
	TornCheckpoint  bool // a checkpoint counts before all of it is there
	MixedCheckpoint bool // memory is loaded, the disks are not rolled back to it
	ReusedNumber    bool // the number of a checkpoint is not stored before its use
	SilentBoot      bool // a guest is booted from its disks before the replica is outdated
}

// world is one run. Times are global nanoseconds unless called local.
type world struct {
	opt      Options
	rng      *rand.Rand
	timing   ha.Timing
	now      int64
	queue    queue
	serial   uint64
	hosts    []*host // 0, 1: nodes; the rest: witnesses
	net      network
	guests   []*volume
	attempts []attempt           // to create guests, by number
	orphans  []ha.GuestID        // of attempts without a good answer
	removed  map[ha.GuestID]bool // every voter that could revive it knows
	stats    Stats
	fail     error
	gen      uint64 // of the cluster configuration
	calm     bool   // the faults are over
	// careless: operators give a wrong word about guests that live under leases,
	// and change nothing about those.
	careless bool

	scripted *script // nothing is left to chance, and somebody looks on
}

// script is what a scenario puts in the place of chance.
type script struct {
	seen  func(*host, ha.Action) // about to be executed
	take  func(*host, *volume, ha.TakeOver)
	shoot func(*host, ha.Fence)
}

const (
	nodes     = 2
	witnesses = 2
)

// Run plays one schedule. The error is the first violation.
func Run(opt Options) (Stats, error) {
	w := newWorld(opt)
	w.play()
	w.stats.Runs, w.stats.FewestFaults = 1, w.stats.Faults
	if w.fail != nil {
		return w.stats, fmt.Errorf("seed %d at %s: %w", opt.Seed, stamp(w.now), w.fail)
	}
	return w.stats, nil
}

func stamp(t int64) string { return fmt.Sprintf("%9.4f", float64(t)/1e9) }

func (w *world) logf(format string, args ...any) {
	if w.opt.Log != nil {
		fmt.Fprintf(w.opt.Log, "%s "+format+"\n", append([]any{stamp(w.now)}, args...)...)
	}
}

func (w *world) violate(format string, args ...any) {
	if w.fail == nil {
		w.fail = fmt.Errorf(format, args...)
		w.logf("VIOLATION "+format, args...)
	}
}

// chance is true with probability p; in a script, what is likely is so.
func (w *world) chance(p float64) bool {
	if w.scripted != nil {
		return p > 0.5
	}
	return p > 0 && w.rng.Float64() < p
}

// between draws a duration in nanoseconds; in a script it is the longest.
func (w *world) between(lo, hi time.Duration) int64 {
	if w.scripted != nil {
		return int64(hi)
	}
	return int64(lo) + w.rng.Int64N(int64(hi-lo)+1)
}

func (w *world) after(d int64, run func()) {
	w.serial++
	w.queue.push(entry{at: w.now + d, serial: w.serial, run: run})
}

// until plays the queue up to a time or the first violation.
func (w *world) until(end int64) {
	for w.fail == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := w.queue.pop()
		w.now = e.at
		e.run()
		w.check()
	}
	if w.fail == nil {
		w.now = max(w.now, end)
	}
}
