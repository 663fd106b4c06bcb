package model

import (
	"fmt"

	"vmctl/ha"
)

func indexOf(id ha.NodeID) int {
	for i := range ids {
		if ids[i] == id {
			return i
		}
	}
	return -1
}

func guestIndex(id ha.GuestID) int {
	for g := range guests {
		if guests[g] == id {
			return g
		}
	}
	return -1
}

// start begins an incarnation of an agent.
func (w *world) start(i int) {
	h := &w.host[i]
	h.agent, h.paused, h.inbox = true, false, nil
	h.boot++
	w.mind[i] = ""
	var records []ha.Record
	for g := range w.count {
		if i == third && w.variant == Forgetful {
			h.store[g] = slot{}
		}
		if h.store[g].ok {
			records = append(records, h.store[g].rec)
		}
	}
	var err error
	if i == third {
		w.witness, err = ha.NewWitness(ha.WitnessSetup{Self: ids[i], Boot: h.boot, Timing: timing(), Start: h.now, Records: records})
	} else {
		w.core[i], err = ha.NewCore(ha.Setup{Self: ids[i], Boot: h.boot, Timing: timing(), Start: h.now, Cluster: h.cluster, Records: records})
	}
	if err != nil {
		w.violate("%v", err)
		return
	}
	w.own[i] = true
	for g := range w.count {
		if m := h.machine[g]; i != third && m.alive && m.epoch >= w.engine[g].epoch {
			w.engine[g] = engine{host: i, epoch: m.epoch}
		}
		if r := h.replica[g]; i != third && r.complete {
			w.feed(i, ha.CandidateState{Guest: guests[g], Ready: true, Epoch: r.epoch})
		}
	}
	w.feed(i, ha.Tick{})
	if i != third {
		w.believe(i)
	}
}

func (w *world) stop(i int) {
	h := &w.host[i]
	h.agent, h.paused, h.inbox = false, false, nil
	w.mind[i] = ""
	if i == third {
		w.witness = nil
	} else {
		w.core[i] = nil
	}
}

// feed gives an agent an event and plays everything that follows at once.
func (w *world) feed(i int, ev ha.Event) {
	if w.queue == nil {
		w.queue = make([]delivery, 0, 8)
	}
	w.queue = append(w.queue, delivery{i, ev})
	if len(w.queue) > 1 {
		return // the loop below is under way
	}
	for n := 0; len(w.queue) > 0; n++ {
		d := w.queue[0]
		if n > 200 {
			w.violate("messages without end: %v", d)
			w.queue = nil
			return
		}
		w.handle(d.to, d.ev)
		w.queue = w.queue[1:]
	}
}

func (w *world) handle(i int, ev ha.Event) {
	h := &w.host[i]
	if !h.power || !h.agent {
		return
	}
	if h.paused || h.suspended {
		if _, tick := ev.(ha.Tick); !tick {
			h.inbox = append(h.inbox, late{ev, fmt.Sprint(ev)})
		}
		return
	}
	w.execute(i, w.step(i, ev))
}

func (w *world) step(i int, ev ha.Event) []ha.Action {
	w.mind[i] = ""
	w.late(i, ev)
	if in, ok := ev.(ha.Received); ok && w.variant == OldBeat && i != third {
		if beat, ok := in.Message.(ha.Heartbeat); ok && beat.From == ids[1-i] {
			w.beat[i] = beat
		}
	}
	if i == third {
		if w.variant == Gateway {
			return gateway(ev)
		}
		if !w.own[i] {
			w.witness, w.own[i] = w.witness.Clone(), true
		}
		return w.witness.Step(w.host[i].now, ev)
	}
	if !w.own[i] {
		w.core[i], w.own[i] = w.core[i].Clone(), true
	}
	return w.core[i].Step(w.host[i].now, ev)
}

func (w *world) execute(i int, list []ha.Action) {
	h := &w.host[i]
	for _, a := range list {
		switch a := a.(type) {
		case ha.Persist, ha.PersistCluster, ha.Erase:
			if h.full {
				w.execute(i, w.step(i, ha.PersistFailed{Err: "full"}))
				return
			}
			w.save(i, a)
		case ha.Send:
			if to := indexOf(a.To); to >= 0 {
				w.honest(i, a.Message)
				w.send(i, to, a.Message)
			}
		case ha.Renew:
			w.renew(i, a)
		case ha.TakeOver:
			w.takeOver(i, a)
		case ha.Fence:
			w.order(i, a)
		case ha.Yield:
			h.machine[guestIndex(a.Guest)] = machine{}
		case ha.Detached:
			e := &w.engine[guestIndex(a.Guest)]
			if e.host == i && e.epoch == a.Epoch && e.asked {
				e.asked, e.detached = false, true
				w.host[1-i].replica[guestIndex(a.Guest)].lacks = true
			}
		}
	}
}

func (w *world) save(i int, a ha.Action) {
	h := &w.host[i]
	switch a := a.(type) {
	case ha.Persist:
		s := &h.store[guestIndex(a.Record.Guest)]
		if s.ok && s.rec.Epoch > a.Record.Epoch {
			w.violate("%s stores epoch %d over epoch %d", ids[i], a.Record.Epoch, s.rec.Epoch)
		}
		*s = slot{rec: a.Record, ok: true}
	case ha.PersistCluster:
		h.cluster = a.Cluster
	case ha.Erase:
		h.store[guestIndex(a.Guest)] = slot{}
	}
}

func (w *world) send(from, to int, m ha.Message) {
	switch w.link[from][to] {
	case linkUp:
		w.queue = append(w.queue, delivery{to, ha.Received{Message: m}})
	case linkHolds:
		if len(w.held) == maxHeld {
			w.held = w.held[1:]
		}
		w.held = append(w.held, envelope{from, to, m, fmt.Sprint(m)})
	}
}

// honest checks that a message says nothing that is not stored.
func (w *world) honest(i int, m ha.Message) {
	if w.variant == Gateway && i == third {
		return
	}
	h := &w.host[i]
	switch m := m.(type) {
	case ha.Heartbeat:
		for _, r := range m.Renewals {
			if s := h.store[guestIndex(r.Guest)].rec; s.Epoch != r.Epoch || s.Rev != r.Rev || s.Owner != ids[i] {
				w.violate("%s renews epoch %d revision %d, but stored %d, %d", ids[i], r.Epoch, r.Rev, s.Epoch, s.Rev)
			}
		}
	case ha.Ack:
		for _, g := range m.Grants {
			s := h.store[guestIndex(g.Guest)]
			if g.OK && s.ok && (s.rec.Epoch != g.Epoch || s.rec.Rev < g.Rev || s.rec.Promised > g.Epoch) {
				w.violate("%s acknowledges epoch %d, but stored epoch %d and promised %d", ids[i], g.Epoch, s.rec.Epoch, s.rec.Promised)
			}
		}
	case ha.Claim:
		if s := h.store[guestIndex(m.Guest)].rec; s.Promised != m.Epoch {
			w.violate("%s claims epoch %d without a stored promise", ids[i], m.Epoch)
		}
	case ha.ClaimReply:
		if s := h.store[guestIndex(m.Guest)].rec; m.OK && (s.Epoch != m.Epoch || s.Owner == ids[i]) {
			w.violate("%s grants epoch %d, but stored epoch %d", ids[i], m.Epoch, s.Epoch)
		}
	}
}

// renew is the guard's part, and the start of a guest that should run.
func (w *world) renew(i int, a ha.Renew) {
	h, g := &w.host[i], guestIndex(a.Guest)
	m, rec := &h.machine[g], h.store[g].rec
	switch {
	case a.Deadline <= h.now:
		return
	case m.alive && m.epoch == a.Epoch:
		if a.Deadline > m.deadline || m.deadline == ha.Forever {
			m.deadline = a.Deadline
		}
	case rec.Run && !rec.Taking:
		*m = machine{alive: true, epoch: a.Epoch, deadline: a.Deadline}
		w.engine[g] = engine{host: i, epoch: a.Epoch}
	}
	w.executing(g, a.Epoch, i)
	if a.Arm != 0 {
		w.queue = append(w.queue, delivery{i, ha.Armed{Guest: a.Guest, Arm: a.Arm}})
	}
}

func (w *world) executing(g int, epoch uint64, i int) {
	if epoch < w.top[g] {
		w.violate("%s runs %s at epoch %d after epoch %d was taken over", ids[i], guests[g], epoch, w.top[g])
	}
	w.check()
}

func (w *world) takeOver(i int, a ha.TakeOver) {
	h, g := &w.host[i], guestIndex(a.Guest)
	r := &h.replica[g]
	if a.Epoch > w.top[g] && r.lacks {
		w.violate("%s takes %s over at epoch %d without acknowledged writes", ids[i], a.Guest, a.Epoch)
	}
	w.top[g] = max(w.top[g], a.Epoch)
	r.complete = false
	h.machine[g] = machine{}
	if a.Deadline > h.now && a.Run {
		h.machine[g] = machine{alive: true, epoch: a.Epoch, deadline: a.Deadline}
		w.engine[g] = engine{host: i, epoch: a.Epoch}
		w.executing(g, a.Epoch, i)
	}
	w.queue = append(w.queue, delivery{i, ha.TakenOver{Guest: a.Guest, Epoch: a.Epoch}})
}
