package sim

import (
	"fmt"

	"vmctl/ha"
)

// operate does what people do: change the witness, stop, move, remove, promote.
func (w *world) operate(f Fault) {
	switch f.Kind {
	case DropWitness, AddWitness:
		w.stats.Rebinds++
		h := w.hosts[f.Where]
		w.gen = max(w.gen, w.hosts[0].cluster.Gen, w.hosts[1].cluster.Gen) + 1
		n := ha.Cluster{Gen: w.gen, By: h.id, Nodes: h.cluster.Nodes, Mode: ha.ModeNone}
		if f.Kind == AddWitness {
			n.Mode, n.Witness = ha.ModeWitness, w.hosts[f.Other].id
		}
		h.deliver(ha.SetCluster{Cluster: n})
	case StopGuest:
		v := w.guests[f.Other]
		w.setRun(v, false)
		w.after(int64(f.For), func() { w.setRun(v, true) })
	case Unprotect:
		v := w.guests[f.Other]
		w.setLevel(v, ha.LevelNone)
		w.after(int64(f.For), func() { w.setLevel(v, ha.LevelResume) })
	case HandOver:
		w.handOver(w.guests[f.Other])
	case Replace:
		w.replace(w.guests[f.Other], int64(f.For))
	case PromoteOff:
		w.hosts[f.Where].powerOff()
		survivor := w.hosts[1-f.Where]
		w.after(int64(f.For), func() {
			w.stats.Promotions++
			for _, v := range w.guests {
				v.manual = true
				survivor.deliver(ha.Promote{Guest: v.id, ConfirmPeerOff: true})
			}
		})
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
			h.machine[v.index] = machine{}
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
func (w *world) handOver(v *volume) {
	h := w.owner(v)
	if h == nil || !h.executes(v.index) || !v.engine.attached || v.live() != h {
		return
	}
	peer := w.hosts[1-h.index]
	if !w.linked(h, peer) || !v.follows(peer, v.engine.epoch) || h.busy {
		return
	}
	w.stats.Handovers++
	w.logf("handover of %s from %s", v.id, h.id)
	h.machine[v.index] = machine{}
	h.deliver(ha.Handover{ID: 7, Guest: v.id})
}

// replace removes a guest and makes a new one under another id, as users do.
// Only a running owner can remove.
func (w *world) replace(v *volume, later int64) {
	h := w.owner(v)
	if h == nil || h.busy || !v.exists {
		return
	}
	h.machine[v.index] = machine{}
	h.deliver(ha.Forget{Guest: v.id})
	v.want, v.exists = false, false
	w.after(later, func() {
		old := v.id
		for _, k := range w.hosts[:nodes] {
			k.machine[v.index] = machine{} // the executor's own clean-up
		}
		n := newVolume(w, v.index)
		n.id = ha.GuestID(fmt.Sprintf("%s'", old))
		n.storeTrouble = v.storeTrouble
		*v = *n
		w.create(v)
	})
}

// create makes a guest on some node that runs.
func (w *world) create(v *volume) {
	h := w.hosts[w.rng.IntN(nodes)]
	if !h.running() || h.busy || h.broken > 0 {
		w.after(500e6, func() { w.create(v) })
		return
	}
	v.want, v.exists, v.silent, v.level = true, true, w.now, ha.LevelResume
	h.deliver(ha.Own{Record: ha.Record{Guest: v.id, Run: true, Level: ha.LevelResume}})
	if _, stored := h.records[v.id]; !stored {
		v.want, v.exists = false, false
		w.after(500e6, func() { w.create(v) })
	}
}

func newVolume(w *world, index int) *volume {
	v := &volume{w: w, index: index, id: ha.GuestID(fmt.Sprintf("g%d", index)), owners: map[uint64]ha.NodeID{}}
	v.busy = []float64{1, 0.1, 0.01, 0}[w.rng.IntN(4)]
	return v
}
