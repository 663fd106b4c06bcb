package model

import "vmctl/ha"

// apply makes a choice.
func (w *world) apply(c Choice) {
	a, b := int(c.A), int(c.B)
	if c.Kind >= Cut {
		w.faults++
	}
	switch c.Kind {
	case Second:
		w.second()
	case Write:
		e := &w.engine[a]
		e.asked, e.attached = true, false
		w.feed(e.host, ha.ReplicaState{Guest: guests[a], Epoch: e.epoch})
	case Heal:
		w.link[a][b], w.link[b][a] = linkUp, linkUp
	case Cut:
		w.link[a][b], w.link[b][a] = linkCut, linkCut
	case CutOff:
		for j := range hosts {
			if j != a {
				w.link[a][j], w.link[j][a] = linkCut, linkCut
			}
		}
	case OneWay:
		w.link[a][b] = linkCut
	case Hold:
		w.link[a][b] = linkHolds
	case Deliver, Twice:
		e := w.held[a]
		if c.Kind == Deliver {
			w.held = append(w.held[:a:a], w.held[a+1:]...)
		}
		w.feed(e.to, ha.Received{Message: e.message})
	case HandOver:
		i := w.engine[a].host
		w.host[i].machine[a] = machine{}
		w.feed(i, ha.Handover{Guest: guests[a]})
	case Mode:
		w.gen++
		n := ha.Cluster{Gen: w.gen, By: ids[0], Nodes: [2]ha.NodeID{ids[0], ids[1]}, Mode: ha.ModeNone}
		if a == 1 {
			n.Mode, n.Witness = ha.ModeWitness, ids[third]
		}
		w.feed(0, ha.SetCluster{Cluster: n})
	default:
		w.hostEvent(c.Kind, a, b)
	}
	w.check()
}

func (w *world) hostEvent(k Kind, i, r int) {
	h := &w.host[i]
	switch k {
	case Start:
		h.power = true
		w.start(i)
	case Resume:
		h.paused, h.suspended = false, false
		late := h.inbox
		h.inbox = nil
		for _, l := range late {
			w.feed(i, l.event)
		}
	case Empty:
		h.full = false
	case Fill:
		h.full = true
	case Crash:
		w.stop(i)
	case Restart:
		w.stop(i)
		w.start(i)
	case PowerOff:
		w.stop(i)
		h.power, h.machine = false, [maxGuests]machine{}
	case Pause:
		h.paused = true
	case Suspend:
		h.suspended = true
	case Drift:
		w.rate = i
	case Hit, Confirm, Miss:
		w.fire(k, i)
	}
}

// fire is what the fencing device does.
func (w *world) fire(k Kind, i int) {
	s := &w.shots[i]
	if k == Hit {
		if s.id != 0 && !s.hit {
			s.hit = true
		} else {
			s.stray = false
		}
		w.hostEvent(PowerOff, 1-i, 0)
		return
	}
	answer := ha.Fenced{ID: s.id, OK: k == Confirm, Err: "failed"}
	current := s.boot == w.host[i].boot
	s.id, s.hit, s.stray = 0, false, s.stray || !s.hit
	if current {
		w.feed(i, answer)
	}
}

// order is the core's order to the device. What an earlier incarnation ordered
// may still be executed.
func (w *world) order(i int, a ha.Fence) {
	s := &w.shots[i]
	s.stray = s.stray || s.id != 0 && !s.hit
	s.id, s.boot, s.hit = a.ID, w.host[i].boot, false
}

// hosts is how many machines there are: without a witness only the nodes.
func (w *world) hosts() int {
	if w.mode == ha.ModeWitness {
		return hosts
	}
	return nodes
}

// second lets time pass, first for the guards, then for the agents.
func (w *world) second() {
	for i := range w.host {
		h := &w.host[i]
		h.now += rates[w.rate][i]
		w.mind[i] = ""
		for g := range h.machine {
			if w.variant == Relative && h.suspended && h.machine[g].deadline != ha.Forever {
				h.machine[g].deadline += rates[w.rate][i]
			}
		}
	}
	w.check()
	for i := range w.host {
		w.feed(i, ha.Tick{})
	}
	if w.variant == NoArbiter {
		w.presume()
	}
	for g := range w.count {
		w.resync(g)
	}
}

// resync completes the standby's replica.
func (w *world) resync(g int) {
	e := &w.engine[g]
	if !w.serves(g) || e.attached || !w.follows(g) {
		return
	}
	peer := 1 - e.host
	w.host[peer].replica[g] = replica{complete: true, epoch: e.epoch}
	e.attached, e.detached, e.asked = true, false, false
	w.feed(peer, ha.CandidateState{Guest: guests[g], Ready: true, Epoch: e.epoch})
	w.feed(e.host, ha.ReplicaState{Guest: guests[g], Epoch: e.epoch, InSync: true})
}

// first is the state a search begins at: every guest runs on its owner and its
// replica is in sync.
func first(b Bounds) *world {
	v, count := b.Variant, max(b.Guests, 1)
	w := &world{variant: v, count: count, gen: 1, mode: b.Mode}
	if w.mode == "" {
		w.mode = ha.ModeWitness
	}
	for i := range w.host {
		h := &w.host[i]
		h.now, h.power = ha.Time(100e9), true
		h.cluster = ha.Cluster{Gen: 1, By: ids[0], Nodes: [2]ha.NodeID{ids[0], ids[1]}, Mode: ha.ModeWitness, Witness: ids[third]}
		switch {
		case v == NoArbiter:
			h.cluster.Mode, h.cluster.Witness = ha.ModeNone, ""
		case w.mode != ha.ModeWitness:
			h.cluster.Mode, h.cluster.Witness, h.cluster.Bias = w.mode, "", ids[1]
		}
		w.start(i)
	}
	w.second()
	for g := range count {
		w.feed(g, ha.Own{Record: ha.Record{Guest: guests[g], Run: true, Level: ha.LevelResume}})
	}
	for range 8 {
		w.second()
	}
	return w
}
