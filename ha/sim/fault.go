package sim

import (
	"fmt"
	"time"
)

// Kind is a kind of fault or of an operator's act.
type Kind string

// Kinds of faults. Where says which host or link, For how long.
const (
	CutLink     Kind = "cut"      // both ways between hosts Where and Other
	CutOneWay   Kind = "cut1"     // from Where to Other
	Isolate     Kind = "isolate"  // host Where from everybody
	CrashAgent  Kind = "crash"    // agent of Where; starts again after For
	PowerOff    Kind = "power"    // host Where; starts again after For
	PauseAgent  Kind = "pause"    // agent of Where is stopped and continued
	LaggyLink   Kind = "lag"      // from Where to Other: delays up to For
	FailStore   Kind = "store"    // of Where
	SlowStore   Kind = "slow"     // of Where
	DropWitness Kind = "none"     // node Where sets the mode none
	AddWitness  Kind = "witness"  // node Where sets the mode witness, number Other
	StopGuest   Kind = "stop"     // the user stops guest Other and starts it after For
	Unprotect   Kind = "level"    // the user sets guest Other's level none and back after For
	HandOver    Kind = "handover" // guest Other
	Replace     Kind = "replace"  // guest Other is removed; a new one is made after For
	PromoteOff  Kind = "promote"  // power off Where for the rest, promote on the other after For
)

// Fault is one act of a schedule.
type Fault struct {
	At    time.Duration
	Kind  Kind
	Where int
	Other int
	For   time.Duration
}

func (f Fault) String() string {
	return fmt.Sprintf("%v %s %d %d for %v", f.At, f.Kind, f.Where, f.Other, f.For)
}

// mix is how often each kind is drawn.
var mix = []struct {
	kind Kind
	n    int
}{
	{CutLink, 5}, {CutOneWay, 4}, {Isolate, 4}, {CrashAgent, 5}, {PowerOff, 4}, {PauseAgent, 5},
	{LaggyLink, 3}, {FailStore, 2}, {SlowStore, 2}, {StopGuest, 1}, {Unprotect, 2}, {HandOver, 1}, {Replace, 1},
}

// schedule draws faults that overlap in the time scale of the protocol.
func (w *world) schedule(length time.Duration, rebind bool) []Fault {
	var list []Fault
	at := 3 * time.Second
	steps := []time.Duration{0, 0, 50 * time.Millisecond, 500 * time.Millisecond, w.timing.Lease,
		w.timing.Lease + w.timing.Stop, w.timing.Window(), w.timing.Window() + w.timing.Heartbeat, 4 * time.Second}
	for at < length {
		if w.opt.Duels || w.chance(0.06) {
			list = append(list, w.duel(at)...)
			at += w.timing.Window()
			continue
		}
		list = append(list, w.draw(at, rebind))
		at += steps[w.rng.IntN(len(steps))] + time.Duration(w.between(0, 300*time.Millisecond))
	}
	return list
}

// duel cuts one node off for about the time after which the other claims its
// guests, lets the two meet again while the claim is under way, and sometimes
// restarts a voter in the middle.
func (w *world) duel(at time.Duration) []Fault {
	a := w.rng.IntN(nodes)
	b, third := 1-a, nodes
	window := w.timing.Window()
	if w.chance(0.3) { // the owner lives on the third voter's leases, which then restarts
		return []Fault{
			{At: at, Kind: CutLink, Where: a, Other: b, For: 3 * window},
			{At: at + window, Kind: CutLink, Where: a, Other: third, For: 2 * window},
			{At: at + window + time.Duration(w.between(0, 300*time.Millisecond)), Kind: CrashAgent, Where: third, For: 10 * time.Millisecond},
		}
	}
	meet := time.Duration(w.between(window-200*time.Millisecond, window+900*time.Millisecond))
	list := []Fault{
		{At: at, Kind: CutLink, Where: a, Other: third, For: time.Duration(w.between(window, 3*window))},
		{At: at, Kind: CutLink, Where: a, Other: b, For: meet},
	}
	if w.chance(0.7) {
		lag := time.Duration(w.between(100*time.Millisecond, 2*time.Second))
		from, to := b, third
		if w.chance(0.5) {
			from, to = to, from
		}
		list = append(list, Fault{At: at + meet - time.Duration(w.between(0, time.Second)), Kind: LaggyLink, Where: from, Other: to, For: lag})
	}
	if w.chance(0.5) {
		list = append(list, Fault{
			At: at + meet + time.Duration(w.between(-300*time.Millisecond, 900*time.Millisecond)), Kind: CrashAgent,
			Where: []int{a, b, third}[w.rng.IntN(3)], For: time.Duration(w.between(time.Millisecond, 500*time.Millisecond)),
		})
	}
	return list
}

func (w *world) draw(at time.Duration, rebind bool) Fault {
	total := 0
	for _, m := range mix {
		total += m.n
	}
	f := Fault{At: at}
	n := w.rng.IntN(total)
	for _, m := range mix {
		if n < m.n {
			f.Kind = m.kind
			break
		}
		n -= m.n
	}
	if rebind && w.chance(0.25) {
		f.Kind = []Kind{DropWitness, AddWitness}[w.rng.IntN(2)]
	}
	voters := nodes + 1
	if rebind {
		voters = nodes + witnesses
	}
	f.Where = w.rng.IntN(voters)
	f.Other = (f.Where + 1 + w.rng.IntN(voters-1)) % voters
	f.For = time.Duration(w.between(20*time.Millisecond, 6*time.Second))
	switch f.Kind {
	case LaggyLink:
		f.For = time.Duration(w.between(500*time.Millisecond, 6*time.Second))
	case DropWitness, AddWitness:
		f.Where, f.Other = w.rng.IntN(nodes), nodes+w.rng.IntN(witnesses)
	case StopGuest, Unprotect, HandOver, Replace:
		f.Other = w.rng.IntN(len(w.guests))
	}
	return f
}

// begin starts a fault and plans its end.
func (w *world) begin(f Fault) {
	w.logf("fault %v", f)
	h := w.hosts[f.Where]
	end := func(undo func()) { w.after(int64(f.For), undo) }
	switch f.Kind {
	case CutLink:
		w.cut(f.Where, f.Other, 1)
		w.cut(f.Other, f.Where, 1)
		end(func() { w.cut(f.Where, f.Other, -1); w.cut(f.Other, f.Where, -1) })
	case CutOneWay:
		w.cut(f.Where, f.Other, 1)
		end(func() { w.cut(f.Where, f.Other, -1) })
	case Isolate:
		w.isolate(f.Where, 1)
		end(func() { w.isolate(f.Where, -1) })
	case CrashAgent:
		h.stopAgent()
		end(h.startAgent)
	case PowerOff:
		h.powerOff()
		end(func() { h.powerOn(); h.startAgent() })
	case PauseAgent:
		h.paused++
		end(func() { h.paused--; w.logf("%s agent continues", h.id); h.drain() })
	case LaggyLink:
		l := &w.net.links[f.Where][f.Other]
		l.slow, l.lag = 0.5, f.For
		end(func() { l.slow = 0 })
	case FailStore:
		h.broken++
		end(func() { h.broken-- })
	case SlowStore:
		h.slow = 0.3
		end(func() { h.slow = 0 })
	default:
		w.operate(f)
	}
}

func (w *world) cut(from, to, n int) { w.net.links[from][to].cut += n }

func (w *world) isolate(i, n int) {
	for j := range w.hosts {
		if j != i {
			w.cut(i, j, n)
			w.cut(j, i, n)
		}
	}
}
