package sim

import (
	"cmp"
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
	w         *world
	index     int
	id        ha.NodeID
	offset    int64 // of the local clock
	ppm       int64 // drift of the local clock
	stale     int   // faults that make the agent's readings of the clock late
	power     bool
	held      bool // an operator keeps it off
	boots     int
	suspended int
	woken     ha.Time // local time of the last wake-up
	agent     bool
	paused    int
	busy      bool   // a slow store holds the agent up
	life      uint64 // of the agent process: changes at every start and end
	boot      uint64 // durable incarnation counter
	records   map[ha.GuestID]ha.Record
	cluster   ha.Cluster
	broken    int     // faults that make the store fail
	full      int     // faults that leave no room
	noDevice  int     // faults of the device that could switch it off
	slow      float64 // probability that a durable action takes long
	lying     *durably
	step      stepper
	inbox     []ha.Event
	machine   []machine // by guest
}

func (h *host) running() bool { return h.power && h.agent && h.paused <= 0 && h.suspended <= 0 }

func (h *host) name() ha.NodeID {
	if h == nil {
		return "nobody"
	}
	return h.id
}

func (h *host) witness() bool { return h.index >= nodes }

func (h *host) startAgent() {
	if !h.power || h.agent {
		return
	}
	h.agent, h.busy, h.inbox = true, false, nil
	h.life++
	h.boot++
	w := h.w
	w.logf("%s agent starts, incarnation %d", h.id, h.boot)
	if err := h.newStep(); err != nil {
		w.violate("%v", err)
		return
	}
	h.tick(h.life)
	for _, v := range w.guests {
		v.agentStarted(h)
	}
}

// newStep makes the host's core from what is stored.
func (h *host) newStep() error {
	w := h.w
	if h.witness() && w.opt.Broken.ForgetfulVoter {
		h.records = map[ha.GuestID]ha.Record{}
	}
	records := slices.SortedFunc(maps.Values(h.records), func(a, b ha.Record) int {
		return cmp.Compare(a.Guest, b.Guest)
	})
	if h.witness() {
		core, err := ha.NewWitness(ha.WitnessSetup{Self: h.id, Boot: h.boot, Timing: w.timing, Start: h.reading(), Records: records})
		if err != nil {
			return err
		}
		if w.opt.PrepareWitness != nil {
			w.opt.PrepareWitness(core)
		}
		h.step = core
		return nil
	}
	core, err := ha.NewCore(ha.Setup{Self: h.id, Boot: h.boot, Timing: w.timing, Start: h.reading(), Cluster: h.cluster, Records: records})
	if err != nil {
		return err
	}
	if w.opt.Prepare != nil {
		w.opt.Prepare(core)
	}
	h.step = core
	return nil
}

func (h *host) stopAgent() {
	if h.agent {
		h.w.logf("%s agent ends", h.id)
	}
	h.agent, h.step, h.inbox = false, nil, nil
	h.life++
}

func (h *host) powerOff() {
	if h.power {
		h.w.logf("%s power off", h.id)
	}
	h.stopAgent()
	h.power = false
	h.boots++
	h.suspended = 0
	clear(h.machine)
	if !h.witness() {
		for _, v := range h.w.guests {
			v.replica[h.index].memory = false
		}
	}
	h.forget()
}

func (h *host) powerOn() {
	if !h.power && !h.held {
		h.w.logf("%s power on", h.id)
		h.power = true
	}
}

// tick is the agent's clock. The witness only needs it to end an alarm.
func (h *host) tick(life uint64) {
	if h.life != life {
		return
	}
	h.secondHolder()
	h.deliver(ha.Tick{})
	d := int64(h.w.timing.Tick) * 9 / 10
	if h.witness() {
		d *= 5
	}
	h.w.after(d+h.w.between(0, 5*time.Millisecond), func() { h.tick(life) })
}

// deliver gives the agent an event, at once or when it runs again.
func (h *host) deliver(ev ha.Event) {
	if !h.power || !h.agent {
		return
	}
	if h.paused > 0 || h.suspended > 0 || h.busy {
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
	list := h.step.Step(h.reading(), ev)
	if h.w.opt.Log != nil {
		h.logStep(ev, list)
	}
	h.execute(list)
}

// end kills the guest's QEMU here and drops what was to start.
func (h *host) end(v *volume) {
	h.machine[v.index] = machine{}
	v.starting[h.index] = starting{}
}
