package sim

import (
	"slices"
	"time"

	"vmctl/ha"
)

// mix is how often each kind is drawn.
var mix = []struct {
	kind Kind
	n    int
}{
	{CutLink, 10}, {CutOneWay, 8}, {Isolate, 8}, {CrashAgent, 10}, {PowerOff, 8}, {PauseAgent, 10},
	{Suspend, 4}, {LaggyLink, 5}, {NoisyLink, 4}, {CopyLink, 2}, {FailStore, 4}, {FullStore, 3}, {SlowStore, 3},
	{StaleClock, 3}, {ClockRate, 3}, {StopGuard, 4}, {KillQEMU, 3}, {StopGuest, 2}, {Unprotect, 3},
	{HandOver, 5}, {Replace, 2}, {Tempt, 3}, {FailFence, 4}, {LieStore, 5}, {ClockJump, 5},
}

// fewest is how many faults a schedule strikes with, unless told otherwise.
const fewest = 20

// enough says whether a schedule is long enough.
func (w *world) enough(list []Fault, at time.Duration) bool {
	if w.opt.Length > 0 {
		return at >= w.opt.Length
	}
	return len(list) >= fewest
}

// schedule draws faults that overlap in the time scale of the protocol.
func (w *world) schedule(rebind bool) []Fault {
	var list []Fault
	at := 2 * time.Second
	steps := []time.Duration{0, 0, 0, 50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, w.timing.Lease,
		w.timing.Lease + w.timing.Stop, w.timing.Window(), w.timing.Window() + w.timing.Heartbeat}
	for !w.enough(list, at) {
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

// drawn says whether a kind may occur in this world.
func (w *world) drawn(k Kind) bool {
	switch {
	case w.opt.Mix != nil:
		return slices.Contains(w.opt.Mix, k)
	case k == LieStore:
		return w.opt.Broken.LyingStore
	case k == ClockJump:
		return w.opt.Broken.WildClock
	case k == FailFence:
		return w.opt.Mode == ha.ModeFence
	case k == Unprotect:
		return !w.careless
	}
	return true
}

func (w *world) draw(at time.Duration, rebind bool) Fault {
	total := 0
	for _, m := range mix {
		if w.drawn(m.kind) {
			total += m.n
		}
	}
	f := Fault{At: at}
	n := w.rng.IntN(total)
	for _, m := range mix {
		if !w.drawn(m.kind) {
			continue
		}
		if n < m.n {
			f.Kind = m.kind
			break
		}
		n -= m.n
	}
	if rebind && w.chance(0.25) {
		f.Kind = []Kind{DropWitness, AddWitness, DropWitness, AddWitness, LoseWitness, SetFence, SetBias}[w.rng.IntN(7)]
	}
	voters := nodes + 1
	if rebind {
		voters = nodes + witnesses
	}
	f.Where = w.rng.IntN(voters)
	f.Other = (f.Where + 1 + w.rng.IntN(voters-1)) % voters
	f.For = time.Duration(w.between(20*time.Millisecond, 5*time.Second))
	switch f.Kind {
	case LaggyLink, CopyLink:
		f.For = time.Duration(w.between(500*time.Millisecond, 6*time.Second))
	case DropWitness, AddWitness, LoseWitness, SetFence, SetBias:
		f.Where, f.Other = w.rng.IntN(nodes), nodes+w.rng.IntN(witnesses)
	case FailFence:
		f.Where = w.rng.IntN(nodes)
	case StopGuard, KillQEMU:
		f.Where, f.Other = w.rng.IntN(nodes), w.rng.IntN(len(w.guests))
	case StopGuest, Unprotect, HandOver, Replace, Tempt:
		f.Other = w.rng.IntN(len(w.guests))
	}
	return f
}

// promotion adds an honest operator to a schedule: one node is switched off,
// stays off until all is well again, and the other is told to take over.
func (w *world) promotion(faults []Fault) []Fault {
	last := faults[len(faults)-1].At
	return append(faults, Fault{
		At: last/3 + time.Duration(w.between(0, 2*last/3)), Kind: PromoteOff, Where: w.rng.IntN(nodes),
		For: time.Duration(w.between(2*time.Second, 5*time.Second)),
	})
}
