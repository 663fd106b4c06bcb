package model

import (
	"encoding/binary"
	"fmt"
	"time"

	"vmctl/ha"
)

const (
	nodes     = 2
	third     = 2 // index of the witness
	hosts     = 3
	maxGuests = 2
	maxHeld   = 3
)

var (
	ids    = [hosts]ha.NodeID{"node-a", "node-b", "witness"}
	guests = [maxGuests]ha.GuestID{"g0", "g1"}
)

// timing is small and tight: with clocks at their extremes the window ends one
// millisecond after the last instant a guest may execute.
func timing() ha.Timing {
	return ha.Timing{
		Lease: 3 * time.Second, Stop: 600 * time.Millisecond, Tick: time.Millisecond,
		Heartbeat: time.Second, Grace: 4 * time.Second, DriftPPM: 100_000,
	}
}

// rates are what the hosts' clocks may advance by in one step.
var rates = [...][hosts]ha.Time{
	{1000e6, 1000e6, 1000e6},
	{900e6, 1100e6, 1100e6},
	{1100e6, 900e6, 1100e6},
}

type linkMode uint8

const (
	linkUp linkMode = iota
	linkCut
	linkHolds
)

// machine is a guest's QEMU under its guard.
type machine struct {
	alive    bool
	epoch    uint64
	deadline ha.Time
}

// replica is a host's copy of a guest's disk.
type replica struct {
	complete bool
	lacks    bool // acknowledged writes
	epoch    uint64
}

// engine is the owner's replication, in the memory of its agent.
type engine struct {
	host                      int
	epoch                     uint64
	attached, asked, detached bool
}

type slot struct {
	rec ha.Record
	ok  bool
}

type host struct {
	now       ha.Time
	boot      uint64
	power     bool
	agent     bool
	paused    bool
	suspended bool
	full      bool // the store
	cluster   ha.Cluster
	store     [maxGuests]slot
	machine   [maxGuests]machine
	replica   [maxGuests]replica
	inbox     []late
}

// late is an event that an agent has not read yet.
type late struct {
	event ha.Event
	text  string // for the keys of all states it is in
}

type envelope struct {
	from, to int
	message  ha.Message
	text     string // for the keys of all states it is in
}

// shot is an order to the fencing device that switches the other node off.
type shot struct {
	id, boot uint64 // of the order; id 0: none
	hit      bool   // the other node lost its power; this one does not know yet
	stray    bool   // the order of an earlier incarnation, or one given up, may still be executed
}

// world is one state. A copy shares the machines until it steps them.
type world struct {
	variant Variant
	count   int // guests
	core    [nodes]*ha.Core
	witness *ha.Witness
	own     [hosts]bool   // this copy may step the machine
	mind    [hosts]string // the machines' part of the key; empty: it may have changed
	host    [hosts]host
	link    [hosts][hosts]linkMode
	held    []envelope
	engine  [maxGuests]engine
	shots   [nodes]shot
	mode    ha.Mode
	beat    [nodes]ha.Heartbeat // of the peer, heard last; kept for OldBeat
	top     [maxGuests]uint64   // highest epoch taken over
	rate    int
	gen     uint64
	faults  int
	queue   []delivery // empty between transitions
	bad     string
}

type delivery struct {
	to int
	ev ha.Event
}

func (w *world) copy() *world {
	n := *w
	n.own = [hosts]bool{}
	n.held = append([]envelope(nil), w.held...)
	for i := range n.host {
		n.host[i].inbox = append([]late(nil), w.host[i].inbox...)
	}
	n.queue = nil
	return &n
}

func (w *world) violate(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

func (w *world) runs(i int) bool {
	h := &w.host[i]
	return h.power && h.agent && !h.paused && !h.suspended
}

// executes says whether a vCPU may run; the guard is given its full stop time.
func (w *world) executes(i, g int) bool {
	h := &w.host[i]
	m := h.machine[g]
	if !h.power || h.suspended || !m.alive {
		return false
	}
	if w.variant == AgentEnforced && h.paused {
		return true
	}
	return m.deadline == ha.Forever || h.now <= m.deadline+ha.Time(timing().Stop)
}

// check looks at the state as a whole.
func (w *world) check() {
	for g := range w.count {
		if w.executes(0, g) && w.executes(1, g) {
			w.violate("%s executes on node-a at epoch %d and on node-b at epoch %d",
				guests[g], w.host[0].machine[g].epoch, w.host[1].machine[g].epoch)
		}
	}
}

// think encodes what a host's agent knows, or what is stored for it.
func (w *world) think(i int) string {
	h := &w.host[i]
	switch {
	case !h.agent:
		return fmt.Sprintf("%v%v", h.store, h.cluster)
	case i == third && w.witness != nil:
		return w.witness.Digest(h.now)
	case i != third && w.core[i] != nil:
		return w.core[i].Digest(h.now)
	}
	return "" // it could not be started, which is a violation already
}

// key appends a canonical encoding to b: equal keys have equal futures. Most
// transitions change one agent; the others' parts are those of the state before.
func (w *world) key(b []byte) []byte {
	for i := range w.mind {
		if w.mind[i] == "" {
			w.mind[i] = w.think(i)
		}
		b = append(append(b, w.mind[i]...), '|')
	}
	for i := range w.host {
		h := &w.host[i]
		b = append(b, '|', bits(h.power, h.agent, h.paused, h.suspended, h.full))
		b = binary.AppendUvarint(b, h.boot)
		for g := range w.count {
			m, r := h.machine[g], h.replica[g]
			left := int64(-1)
			if w.executes(i, g) || m.alive && h.suspended {
				left = int64(m.deadline)
				if m.deadline != ha.Forever {
					left -= int64(h.now)
				}
			}
			b = append(b, bits(m.alive, r.complete, r.lacks, h.store[g].ok))
			b = binary.AppendVarint(b, left)
			b = binary.AppendUvarint(b, m.epoch)
			b = binary.AppendUvarint(b, r.epoch)
			b = binary.AppendUvarint(b, h.store[g].rec.Epoch)
		}
		for _, ev := range h.inbox {
			b = append(b, ev.text...)
		}
		for _, m := range w.link[i] {
			b = append(b, byte(m))
		}
	}
	for _, e := range w.held {
		b = append(append(b, byte(e.from), byte(e.to)), e.text...)
	}
	for g := range w.count {
		e := w.engine[g]
		b = append(b, byte(e.host), byte(e.epoch), bits(e.attached, e.asked, e.detached), byte(w.top[g]))
	}
	for _, s := range w.shots {
		b = append(b, byte(s.id), byte(s.boot), bits(s.hit, s.stray))
	}
	return append(b, byte(w.rate), byte(w.gen), byte(w.faults))
}

func bits(list ...bool) (b byte) {
	for i, x := range list {
		if x {
			b |= 1 << i
		}
	}
	return b
}
