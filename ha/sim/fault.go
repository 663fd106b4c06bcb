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
	Suspend     Kind = "suspend"  // host Where sleeps; its clock goes on
	LaggyLink   Kind = "lag"      // from Where to Other: delays up to For
	CopyLink    Kind = "copy"     // from Where to Other: everything twice, each delayed up to For
	NoisyLink   Kind = "noise"    // from Where to Other: loses half, repeats half
	FailStore   Kind = "store"    // of Where: fails now and then
	FullStore   Kind = "full"     // of Where: no room, for the replica neither
	SlowStore   Kind = "slow"     // of Where
	StaleClock  Kind = "stale"    // the agent of Where reads the clock late, and not in order
	ClockRate   Kind = "rate"     // the clock of Where goes at another rate, within the bound
	StopGuard   Kind = "guard"    // the guard of guest Other on node Where is stopped and continued
	KillQEMU    Kind = "qemu"     // of guest Other on node Where, or its guard, which is the same
	DropWitness Kind = "none"     // node Where sets the mode none
	AddWitness  Kind = "witness"  // node Where sets the mode witness, number Other
	SetFence    Kind = "fence"    // node Where sets the mode fence
	SetBias     Kind = "bias"     // node Where sets the mode bias
	FailFence   Kind = "device"   // the fence device of node Where fails
	LoseWitness Kind = "lost"     // the witness is off for the rest; another is added after For
	StopGuest   Kind = "stop"     // the user stops guest Other and starts it after For
	Unprotect   Kind = "level"    // the user sets guest Other's level none and back after For
	HandOver    Kind = "handover" // guest Other
	Replace     Kind = "replace"  // guest Other is removed; a new one is made after For
	Tempt       Kind = "tempt"    // an order to promote guest Other while its owner may be alive
	PromoteOff  Kind = "promote"  // power off Where for the rest, promote on the other after For

	// What the protocol does not claim to survive; for broken worlds.
	LieStore  Kind = "lie"  // the store of Where loses its last writes when the power goes
	ClockJump Kind = "jump" // the clock of Where goes forward by For at once
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

// begin starts a fault and plans its end. What has nothing to act on is left out.
func (w *world) begin(f Fault) {
	w.logf("fault %v", f)
	if !w.strike(f) {
		w.logf("nothing to do")
		return
	}
	w.stats.Faults++
	if w.stats.Kinds == nil {
		w.stats.Kinds = map[Kind]int{}
	}
	w.stats.Kinds[f.Kind]++
}

func (w *world) strike(f Fault) bool {
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
	case LaggyLink:
		l := &w.net.links[f.Where][f.Other]
		l.slow, l.lag = 0.5, f.For
		end(func() { l.slow = 0 })
	case CopyLink:
		l := &w.net.links[f.Where][f.Other]
		l.twice, l.slow, l.lag = 1, 0.7, f.For
		end(func() { l.twice, l.slow = 0, 0 })
	case NoisyLink:
		l := &w.net.links[f.Where][f.Other]
		l.loss, l.twice = 0.5, 0.5
		end(func() { l.loss, l.twice = 0, 0 })
	case CrashAgent, PauseAgent, PowerOff, Suspend, StopGuard, KillQEMU:
		return w.strikeProcess(f, h, end)
	case FailStore, FullStore, SlowStore, LieStore, StaleClock, ClockRate, ClockJump, FailFence:
		w.strikeHost(f, h, end)
	default:
		return w.operate(f)
	}
	return true
}

// strikeProcess never stops the guard and the agent of a host together, which
// nothing but a watchdog survives; a broken world does.
func (w *world) strikeProcess(f Fault, h *host, end func(func())) bool {
	switch f.Kind {
	case PowerOff:
		h.powerOff()
		end(func() { h.powerOn(); h.startAgent() })
		return true
	case Suspend:
		return w.suspend(f)
	case StopGuard:
		return w.stopGuard(f)
	case KillQEMU:
		if !h.machine[f.Other].alive {
			return false
		}
		h.machine[f.Other] = machine{}
		return true
	}
	if h.guardStopped() && !w.opt.Broken.BothStopped {
		return false
	}
	if f.Kind == CrashAgent {
		h.stopAgent()
		end(h.startAgent)
		return true
	}
	h.paused++
	end(func() { h.paused--; w.logf("%s agent continues", h.id); h.drain() })
	return true
}

// strikeHost is about stores and clocks.
func (w *world) strikeHost(f Fault, h *host, end func(func())) {
	switch f.Kind {
	case FailStore:
		h.broken++
		end(func() { h.broken-- })
	case FullStore:
		h.full++
		end(func() { h.full-- })
	case FailFence:
		h.noDevice++
		end(func() { h.noDevice-- })
	case SlowStore:
		h.slow = 0.3
		end(func() { h.slow = 0 })
	case LieStore:
		h.lie()
		end(func() { h.lying = nil })
	case StaleClock:
		h.stale++
		end(func() { h.stale-- })
	case ClockRate:
		h.setRate(w.drawRate())
	case ClockJump:
		h.offset += int64(f.For)
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
