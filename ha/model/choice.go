package model

import (
	"fmt"
	"slices"

	"vmctl/ha"
)

// Kind is what may happen next.
type Kind uint8

// Kinds of choices. Those from Cut on are faults and acts of people, which the
// bounds count.
const (
	Second   Kind = iota // passes on every clock
	Write                // guest A writes what its peer cannot get
	Heal                 // both ways between A and B
	Deliver              // held message A
	Start                // host A and its agent
	Resume               // agent or host A, paused or suspended
	Empty                // the store of A has room again
	Hit                  // the shot of A: the other node loses power
	Confirm              // the device tells A that the other node is off
	Cut                  // both ways between A and B
	CutOff               // A from everybody
	OneWay               // from A to B
	Hold                 // what A sends to B
	Twice                // deliver held message A and keep it
	Crash                // agent of A
	Restart              // agent of A, at once
	PowerOff             // host A
	Pause                // agent of A
	Suspend              // host A
	Fill                 // the store of A
	Drift                // the clocks advance by rates A
	HandOver             // guest A
	Mode                 // A=1: live under the witness, 0: without
	Miss                 // the device tells A that it failed; the order may be executed later
)

var kindNames = [...]string{
	"a second passes", "write to %s that the peer cannot get", "links %s and %s again", "a held message arrives: %s",
	"%s starts", "%s goes on", "room in the store of %s",
	"the shot of %s takes the other node's power", "%s hears that the other node is off", "cut %s and %s", "cut %s off from everybody", "lose what %s sends to %s",
	"hold what %s sends to %s", "a held message arrives, and will again: %s", "the agent of %s crashes", "the agent of %s is restarted",
	"%s loses power", "the agent of %s is paused", "%s is suspended", "the store of %s is full", "clock rates %s",
	"hand %s over", "mode %s", "the shot of %s fails",
}

// Choice is one transition.
type Choice struct {
	Kind Kind
	A, B uint8
}

// describe names a choice made in a state.
func (w *world) describe(c Choice) string {
	text := kindNames[c.Kind]
	switch c.Kind {
	case Second:
		return text
	case Write, HandOver:
		return fmt.Sprintf(text, guests[c.A])
	case Deliver, Twice:
		e := w.held[c.A]
		return fmt.Sprintf(text, fmt.Sprintf("%T from %s to %s", e.message, ids[e.from], ids[e.to]))
	case Drift:
		return fmt.Sprintf(text, fmt.Sprint(rates[c.A]))
	case Mode:
		return fmt.Sprintf(text, []ha.Mode{ha.ModeNone, ha.ModeWitness}[c.A])
	case Heal, Cut, OneWay, Hold:
		return fmt.Sprintf(text, ids[c.A], ids[c.B])
	}
	return fmt.Sprintf(text, ids[c.A])
}

// choices lists what may happen in a state, in a fixed order. A path begins with
// a fault: while all is well every second is like the one before.
func (w *world) choices(b Bounds) []Choice {
	if w.faults == 0 {
		return w.trouble(nil, b.Only)
	}
	list := append(make([]Choice, 0, 40), Choice{Kind: Second})
	add := func(k Kind, a, b int) { list = append(list, Choice{k, uint8(a), uint8(b)}) }
	for g := range w.count {
		if w.mayWrite(g) {
			add(Write, g, 0)
		}
	}
	for i := range w.held {
		add(Deliver, i, 0)
	}
	for i := range hosts {
		h := &w.host[i]
		switch {
		case !h.agent:
			add(Start, i, 0)
		case h.paused || h.suspended:
			add(Resume, i, 0)
		}
		if h.full {
			add(Empty, i, 0)
		}
		for j := i + 1; j < hosts; j++ {
			if w.link[i][j] != linkUp || w.link[j][i] != linkUp {
				add(Heal, i, j)
			}
		}
	}
	for i, s := range w.shots {
		if s.id != 0 && !s.hit || s.stray {
			add(Hit, i, 0)
		}
		if s.id != 0 && (s.hit || w.variant == Unconfirmed) {
			add(Confirm, i, 0)
		}
	}
	if w.faults < b.Faults {
		return w.trouble(list, b.Only)
	}
	return list
}

// trouble adds the faults, of some kinds only if any are given.
func (w *world) trouble(list []Choice, only []Kind) []Choice {
	add := func(k Kind, a, b int) {
		if only == nil || slices.Contains(only, k) {
			list = append(list, Choice{k, uint8(a), uint8(b)})
		}
	}
	for i := range w.hosts() {
		for j := i + 1; j < w.hosts(); j++ {
			if w.link[i][j] != linkCut || w.link[j][i] != linkCut {
				add(Cut, i, j)
			}
		}
		add(CutOff, i, 0)
		for j := range w.hosts() {
			if i != j && w.link[i][j] == linkUp {
				add(OneWay, i, j)
				add(Hold, i, j)
			}
		}
		if w.runs(i) {
			add(Crash, i, 0)
			add(Restart, i, 0)
			add(Pause, i, 0)
			if i != third {
				add(PowerOff, i, 0)
				add(Suspend, i, 0)
			}
			if !w.host[i].full {
				add(Fill, i, 0)
			}
		}
	}
	for i := range w.held {
		add(Twice, i, 0)
	}
	for r := range rates {
		if r != w.rate {
			add(Drift, r, 0)
		}
	}
	for g := range w.count {
		if w.mayHandOver(g) {
			add(HandOver, g, 0)
		}
	}
	for i, s := range w.shots {
		if s.id != 0 && !s.hit {
			add(Miss, i, 0)
		}
	}
	if w.variant == "" && w.mode == ha.ModeWitness && w.runs(0) {
		if w.host[0].cluster.Mode == ha.ModeWitness {
			add(Mode, 0, 0)
		} else {
			add(Mode, 1, 0)
		}
	}
	return list
}

// linked says whether data flows both ways between the nodes.
func (w *world) linked() bool {
	return w.runs(0) && w.runs(1) && w.link[0][1] == linkUp && w.link[1][0] == linkUp
}

func (w *world) serves(g int) bool {
	e := w.engine[g]
	m := w.host[e.host].machine[g]
	return w.runs(e.host) && m.alive && m.epoch == e.epoch && w.executes(e.host, g)
}

func (w *world) follows(g int) bool {
	e := w.engine[g]
	s := w.host[1-e.host].store[g]
	return w.linked() && s.ok && s.rec.Epoch == e.epoch && s.rec.Owner == ids[e.host] && s.rec.Promised == 0 && !s.rec.Gone
}

func (w *world) mayWrite(g int) bool {
	e := w.engine[g]
	return w.serves(g) && !e.asked && !e.detached && !(e.attached && w.follows(g))
}

func (w *world) mayHandOver(g int) bool {
	return w.serves(g) && w.engine[g].attached && w.follows(g)
}
