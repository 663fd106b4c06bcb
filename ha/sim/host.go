package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"vmctl/ha"
)

// stepper is a Core or a Witness.
type stepper interface {
	Step(ha.Time, ha.Event) []ha.Action
}

// host is a machine with a clock, a store and an agent.
type host struct {
	w       *world
	index   int
	id      ha.NodeID
	offset  int64 // of the local clock
	ppm     int64 // drift of the local clock
	power   bool
	agent   bool
	paused  int
	busy    bool   // a slow store holds the agent up
	life    uint64 // of the agent process: changes at every start and end
	boot    uint64 // durable incarnation counter
	records map[ha.GuestID]ha.Record
	cluster ha.Cluster
	broken  int     // faults that make the store fail
	slow    float64 // probability that a durable action takes long
	step    stepper
	inbox   []ha.Event
	machine []machine // by guest
}

// machine is a guest's QEMU under its guard on one host.
type machine struct {
	alive    bool
	epoch    uint64
	deadline ha.Time
}

func (h *host) local() ha.Time { return h.localAt(h.w.now) }

func (h *host) localAt(t int64) ha.Time {
	return ha.Time(h.offset + t + t/1_000_000*h.ppm)
}

func (h *host) running() bool { return h.power && h.agent && h.paused <= 0 }

func (h *host) witness() bool { return h.index >= nodes }

// executes says whether a vCPU of the guest may run on this host now. The guard
// is given its full time D to stop it.
func (h *host) executes(g int) bool {
	m := &h.machine[g]
	if !h.power || !m.alive {
		return false
	}
	if h.w.opt.NoGuard && !h.running() {
		return true
	}
	return m.deadline == ha.Forever || h.local() <= m.deadline+ha.Time(h.w.timing.Stop)
}

func (h *host) startAgent() {
	if !h.power || h.agent {
		return
	}
	h.agent, h.busy, h.inbox = true, false, nil
	h.life++
	h.boot++
	w := h.w
	w.logf("%s agent starts, incarnation %d", h.id, h.boot)
	records := slices.SortedFunc(maps.Values(h.records), func(a, b ha.Record) int {
		return cmp.Compare(a.Guest, b.Guest)
	})
	if h.witness() {
		if w.opt.ForgetfulVoter {
			records = nil
			h.records = map[ha.GuestID]ha.Record{}
		}
		core, err := ha.NewWitness(ha.WitnessSetup{Self: h.id, Boot: h.boot, Timing: w.timing, Start: h.local(), Records: records})
		if err != nil {
			w.violate("%v", err)
			return
		}
		if w.opt.PrepareWitness != nil {
			w.opt.PrepareWitness(core)
		}
		h.step = core
	} else {
		core, err := ha.NewCore(ha.Setup{Self: h.id, Boot: h.boot, Timing: w.timing, Start: h.local(), Cluster: h.cluster, Records: records})
		if err != nil {
			w.violate("%v", err)
			return
		}
		if w.opt.Prepare != nil {
			w.opt.Prepare(core)
		}
		h.step = core
	}
	h.tick(h.life)
	for _, v := range w.guests {
		v.agentStarted(h)
	}
}

func (h *host) stopAgent() {
	if h.agent {
		h.w.logf("%s agent ends", h.id)
	}
	h.agent, h.step, h.inbox = false, nil, nil
	h.life++
}

func (h *host) powerOff() {
	h.w.logf("%s power off", h.id)
	h.stopAgent()
	h.power = false
	for i := range h.machine {
		h.machine[i] = machine{}
	}
}

func (h *host) powerOn() {
	if !h.power {
		h.w.logf("%s power on", h.id)
		h.power = true
	}
}

func (h *host) tick(life uint64) {
	if h.life != life {
		return
	}
	h.deliver(ha.Tick{})
	d := int64(h.w.timing.Tick) * 9 / 10
	h.w.after(d+h.w.between(0, 5*time.Millisecond), func() { h.tick(life) })
}

// deliver gives the agent an event, at once or when it runs again.
func (h *host) deliver(ev ha.Event) {
	if !h.power || !h.agent {
		return
	}
	if h.paused > 0 || h.busy {
		if _, tick := ev.(ha.Tick); !tick || len(h.inbox) == 0 {
			h.inbox = append(h.inbox, ev)
		}
		return
	}
	h.handle(ev)
	h.drain()
}

func (h *host) drain() {
	for len(h.inbox) > 0 && h.running() && !h.busy {
		ev := h.inbox[0]
		h.inbox = h.inbox[1:]
		h.handle(ev)
	}
}

func (h *host) handle(ev ha.Event) {
	h.w.stats.Steps++
	list := h.step.Step(h.local(), ev)
	if h.w.opt.Log != nil {
		h.logStep(ev, list)
	}
	h.execute(list)
}

// execute does a list of actions; a slow store interrupts it, and a crash may
// then cut it short.
func (h *host) execute(list []ha.Action) {
	life := h.life
	talked := false
	for i, a := range list {
		if durable(a) && talked {
			h.w.violate("%s: %s comes after an action that is not durable", h.id, describe(a))
		}
		talked = talked || !durable(a)
		if h.life != life || h.w.fail != nil {
			return
		}
		if durable(a) {
			if h.broken > 0 && h.w.chance(0.7) {
				h.w.stats.PersistFailures++
				for _, v := range h.w.guests {
					v.storeTrouble = true
				}
				if h.w.chance(0.5) { // the write may have landed all the same
					h.store(a)
				}
				h.handle(ha.PersistFailed{Err: "simulated"})
				return
			}
			h.store(a)
			if h.w.chance(h.slow) {
				h.busy = true
				rest := list[i+1:]
				h.w.after(h.w.between(0, 3*time.Second), func() {
					if h.life == life {
						h.resume(rest, life)
					}
				})
				return
			}
			continue
		}
		h.act(a)
	}
}

func (h *host) resume(rest []ha.Action, life uint64) {
	if h.paused > 0 {
		h.w.after(int64(10*time.Millisecond), func() {
			if h.life == life {
				h.resume(rest, life)
			}
		})
		return
	}
	h.busy = false
	h.execute(rest)
	h.drain()
}

func durable(a ha.Action) bool {
	switch a.(type) {
	case ha.Persist, ha.PersistCluster, ha.Erase:
		return true
	}
	return false
}

func (h *host) store(a ha.Action) {
	switch a := a.(type) {
	case ha.Persist:
		if old, ok := h.records[a.Record.Guest]; ok && old.Epoch > a.Record.Epoch && h.broken == 0 && !old.Gone {
			if v := h.w.volume(a.Record.Guest); v != nil && !v.storeTrouble {
				h.w.violate("%s stores epoch %d of %s over epoch %d", h.id, a.Record.Epoch, a.Record.Guest, old.Epoch)
			}
		}
		h.records[a.Record.Guest] = a.Record
	case ha.PersistCluster:
		h.cluster = a.Cluster
	case ha.Erase:
		delete(h.records, a.Guest)
	}
}

func (h *host) logStep(ev ha.Event, list []ha.Action) {
	if _, tick := ev.(ha.Tick); tick && len(list) == 0 {
		return
	}
	h.w.logf("%s @%d <- %T%+v", h.id, h.local(), ev, ev)
	for _, a := range list {
		h.w.logf("%s    -> %s", h.id, describe(a))
	}
}

func describe(a ha.Action) string { return fmt.Sprintf("%T%+v", a, a) }
