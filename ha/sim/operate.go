package sim

import (
	"time"

	"vmctl/ha"
)

// Requests whose replies matter: orders to promote, by guest, and to create, by
// attempt.
const (
	idHandover  = 7
	idUnsafe    = 100 // without the word that the peer is off
	idPromotion = 200 // with it
	idCreate    = 1000
)

// operate does what people do: change the witness, stop, move, remove, promote.
// It says whether there was anything to do.
func (w *world) operate(f Fault) bool {
	switch f.Kind {
	case DropWitness:
		w.rebind(w.hosts[f.Where], ha.ModeNone, "")
	case AddWitness:
		w.rebind(w.hosts[f.Where], ha.ModeWitness, w.hosts[f.Other].id)
	case SetFence:
		w.rebind(w.hosts[f.Where], ha.ModeFence, "")
	case SetBias:
		w.rebind(w.hosts[f.Where], ha.ModeBias, "")
	case LoseWitness:
		return w.loseWitness(f)
	case StopGuest:
		v := w.guests[f.Other]
		w.setRun(v, false)
		w.after(int64(f.For), func() { w.setRun(v, true) })
	case Unprotect:
		v := w.guests[f.Other]
		w.setLevel(v, ha.LevelNone)
		w.after(int64(f.For), func() { w.setLevel(v, v.kind) })
	case HandOver:
		return w.handOver(w.guests[f.Other])
	case Replace:
		return w.replace(w.guests[f.Other], int64(f.For))
	case PromoteOff:
		w.hosts[f.Where].held = true
		w.hosts[f.Where].powerOff()
		survivor := w.hosts[1-f.Where]
		w.after(int64(f.For), func() {
			for _, v := range w.guests {
				w.promote(survivor, v)
			}
		})
	case Tempt:
		return w.tempt(w.guests[f.Other])
	}
	return true
}

// configuration is a new version of a cluster's, made by one of its nodes.
func (w *world) configuration(was ha.Cluster, by ha.NodeID, mode ha.Mode, witness ha.NodeID) ha.Cluster {
	w.gen++
	n := ha.Cluster{Gen: w.gen, By: by, Nodes: was.Nodes, Mode: mode}
	switch mode {
	case ha.ModeWitness:
		n.Witness = witness
	case ha.ModeBias:
		n.Bias = was.Nodes[w.rng.IntN(nodes)]
	case ha.ModeFence:
		n.FenceDelay = time.Duration(w.rng.IntN(3)) * 2 * time.Second
	}
	return n
}

func (w *world) rebind(h *host, mode ha.Mode, witness ha.NodeID) {
	w.stats.Rebinds++
	w.gen = max(w.gen, w.hosts[0].cluster.Gen, w.hosts[1].cluster.Gen)
	h.deliver(ha.SetCluster{Cluster: w.configuration(h.cluster, h.id, mode, witness)})
}

// loseWitness takes the witness in use away for the rest of the faults; people
// set up the other one.
func (w *world) loseWitness(f Fault) bool {
	h := w.hosts[f.Where]
	for i := nodes; i < nodes+witnesses; i++ {
		if lost := w.hosts[i]; lost.id == h.cluster.Witness && lost.power {
			spare := w.hosts[nodes+(i-nodes+1)%witnesses]
			if spare.held {
				return false
			}
			lost.held = true
			lost.powerOff()
			w.after(int64(f.For), func() { w.rebind(h, ha.ModeWitness, spare.id) })
			return true
		}
	}
	return false
}

// promote is an honest operator's order: the other node is off.
func (w *world) promote(h *host, v *volume) {
	w.stats.Promotions++
	v.manual = true
	h.deliver(ha.Promote{ID: uint64(idPromotion + v.index), Guest: v.id, ConfirmPeerOff: true})
}

// tempt orders what must not be done, or only under the eyes of the witness: to
// promote while the owner may be alive. Without the word that it is off, that
// is always refused. A wrong word does no harm while a witness in reach judges
// about leases, and the guest lives under them.
func (w *world) tempt(v *volume) bool {
	i := w.rng.IntN(nodes)
	h := w.hosts[i]
	if !h.running() || h.busy || !v.exists {
		return false
	}
	if !w.careless || w.chance(0.3) {
		h.deliver(ha.Promote{ID: uint64(idUnsafe + v.index), Guest: v.id})
		return true
	}
	core := h.step.(*ha.Core)
	s := core.Status()
	heard := s.WitnessHeard != 0 && h.local()-s.WitnessHeard < ha.Time(w.timing.Window()-2*w.timing.Tick-w.timing.Heartbeat)
	if !heard || h.records[v.id].Arbiter == "" {
		return false
	}
	w.promote(h, v)
	return true
}

// answered looks at a core's reply to an order to promote.
func (w *world) answered(h *host, r ha.Reply) {
	switch i := int(r.ID); {
	case i >= idCreate:
		w.created(h, i-idCreate, r)
	case i >= idUnsafe && i < idUnsafe+len(w.guests):
		if r.Code == ha.OK {
			w.violate("%s promotes %s without the word that the peer is off", h.id, w.guests[i-idUnsafe].id)
		}
	case i >= idPromotion && i < idPromotion+len(w.guests):
		v := w.guests[i-idPromotion]
		// Of an order that could not be stored nobody knows whether it stands.
		if r.Code != ha.OK && r.Code != ha.CodeStorage {
			v.manual = false
		} else if own := h.records[v.id]; own.Owner == h.id && own.Epoch < v.top {
			v.revived = true
		}
	}
}

// owner is the node that executes the guest, or whose agent could.
func (w *world) owner(v *volume) *host {
	for _, h := range w.hosts[:nodes] {
		if r, ok := h.records[v.id]; ok && r.Owner == h.id && h.running() && h.machine[v.index].alive {
			return h
		}
	}
	return nil
}

// setRun is a user who repeats the command until the owner has stored it.
func (w *world) setRun(v *volume, run bool) {
	v.want = run
	w.command(v, func(h *host, r ha.Record) (ha.Event, bool) {
		if !run && v.want == run {
			h.end(v)
		}
		return ha.SetRun{Guest: v.id, Run: run}, r.Run == run
	}, func() bool { return v.want == run })
}

func (w *world) setLevel(v *volume, level ha.Level) {
	v.level = level
	w.command(v, func(_ *host, r ha.Record) (ha.Event, bool) {
		return ha.SetLevel{Guest: v.id, Level: level}, r.Level == level
	}, func() bool { return v.level == level })
}

// command repeats an order to the owner while it is still wanted and not done.
func (w *world) command(v *volume, order func(*host, ha.Record) (ha.Event, bool), wanted func() bool) {
	id := v.id
	w.insist(func() bool {
		if v.id != id || !v.exists || !wanted() {
			return true
		}
		done, missed, top := false, false, uint64(0) // a former owner may not know yet
		for _, h := range w.hosts[:nodes] {
			r, ok := h.records[v.id]
			if !ok || r.Owner != h.id {
				continue
			}
			if !h.running() || h.busy {
				missed = true
				continue
			}
			ev, already := order(h, r)
			if r.Epoch >= top {
				top, done = r.Epoch, already && h.broken <= 0
			}
			h.deliver(ev)
		}
		return done && !missed
	})
}

func (w *world) insist(try func() bool) {
	if !try() {
		w.after(500e6, func() { w.insist(try) })
	}
}

// handOver stops the guest and gives it to the peer, if its replica is complete.
func (w *world) handOver(v *volume) bool {
	h := w.owner(v)
	if h == nil || !h.executes(v.index) || !v.engine.attached || v.live() != h {
		return false
	}
	peer := w.hosts[1-h.index]
	if !w.linked(h, peer) || !v.follows(peer, v.engine.epoch) || h.busy {
		return false
	}
	c, ok := v.capture(h)
	if !ok || !v.commit(peer, c) {
		return false
	}
	v.engine.known = c.number
	w.stats.Handovers++
	w.logf("handover of %s from %s", v.id, h.id)
	h.end(v)
	h.deliver(ha.Handover{ID: idHandover, Guest: v.id})
	return true
}

// replace removes a guest and makes a new one under another id, as users do.
// Only a running owner can remove.
func (w *world) replace(v *volume, later int64) bool {
	h := w.owner(v)
	if h == nil || h.busy || !v.exists {
		return false
	}
	h.end(v)
	h.deliver(ha.Forget{Guest: v.id})
	v.want, v.exists = false, false
	w.after(later, func() {
		for _, k := range w.hosts[:nodes] {
			k.end(v) // the executor's own clean-up
		}
		n := newVolume(w, v.index)
		n.names, n.storeTrouble = v.names, v.storeTrouble
		n.rename()
		*v = *n
		w.create(v)
	})
	return true
}
