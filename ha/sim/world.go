package sim

import (
	"container/heap"
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
	Length time.Duration // of the faulty part; 0: by the seed
	Log    io.Writer     // nil: no log
	Script []Fault       // nil: by the seed
	Mode   ha.Mode       // "": by the seed
	Quiet  bool          // no everyday loss and delay
	Duels  bool          // only faults around the instant of a takeover

	// Broken worlds, to show that the checks can fail.
	NoGuard        bool // the agent enforces deadlines, so a paused one does not
	ForgetfulVoter bool // a restarted witness has lost its records

	// Prepare functions see every core right after it was made.
	Prepare        func(*ha.Core)
	PrepareWitness func(*ha.Witness)
}

// Stats count what a run went through, to show that it went through something.
type Stats struct {
	Steps, TakeOvers, Promotions, Handovers, Yields, Detached, Attached int
	Claims, Refusals, PersistFailures, Starts, Freezes, Rebinds         int
	LongestOutage                                                       time.Duration
}

// Add sums counters.
func (s *Stats) Add(o Stats) {
	s.Steps += o.Steps
	s.TakeOvers += o.TakeOvers
	s.Promotions += o.Promotions
	s.Handovers += o.Handovers
	s.Yields += o.Yields
	s.Detached += o.Detached
	s.Attached += o.Attached
	s.Claims += o.Claims
	s.Refusals += o.Refusals
	s.PersistFailures += o.PersistFailures
	s.Starts += o.Starts
	s.Freezes += o.Freezes
	s.Rebinds += o.Rebinds
	s.LongestOutage = max(s.LongestOutage, o.LongestOutage)
}

// world is one run. Times are global nanoseconds unless called local.
type world struct {
	opt    Options
	rng    *rand.Rand
	timing ha.Timing
	now    int64
	queue  queue
	serial uint64
	hosts  []*host // 0, 1: nodes; the rest: witnesses
	net    network
	guests []*volume
	stats  Stats
	fail   error
	gen    uint64 // of the cluster configuration
	calm   bool   // the faults are over
}

const (
	nodes     = 2
	witnesses = 2
)

// Run plays one schedule. The error is the first violation.
func Run(opt Options) (Stats, error) {
	w := newWorld(opt)
	w.play()
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

// chance is true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between draws a duration in nanoseconds.
func (w *world) between(lo, hi time.Duration) int64 {
	return int64(lo) + w.rng.Int64N(int64(hi-lo)+1)
}

type entry struct {
	at     int64
	serial uint64
	run    func()
}

type queue []entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || (q[i].at == q[j].at && q[i].serial < q[j].serial)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(entry)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1].run = nil
	*q = old[:len(old)-1]
	return last
}

func (w *world) after(d int64, run func()) {
	w.serial++
	heap.Push(&w.queue, entry{at: w.now + d, serial: w.serial, run: run})
}

// until plays the queue up to a time or the first violation.
func (w *world) until(end int64) {
	for w.fail == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(entry)
		w.now = e.at
		e.run()
	}
	if w.fail == nil {
		w.now = max(w.now, end)
	}
}
