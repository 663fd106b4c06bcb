package sim

import (
	"time"

	"vmctl/ha"
)

// volume is a guest's data and the replication engine that keeps it on two
// hosts. Versions count acknowledged writes.
type volume struct {
	w       *world
	index   int
	id      ha.GuestID
	want    bool // the user wants it running
	exists  bool
	level   ha.Level // wanted
	acked   uint64   // the newest version the guest was told is safe
	replica [nodes]replica
	engine  engine
	top     uint64 // highest epoch that was taken over
	owners  map[uint64]ha.NodeID
	manual  bool // an operator promoted it: writes may be lost
	silent  int64
	busy    float64 // how often the guest writes; an idle one stays claimable while cut off
	// storeTrouble: a store failed in this run, so an older version may be
	// written over a newer one that was never acted on.
	storeTrouble bool
}

type replica struct {
	version  uint64
	epoch    uint64
	complete bool
}

// engine is the owner's replication, in the memory of its agent.
type engine struct {
	host     *host
	life     uint64
	epoch    uint64
	detached bool // writes need not reach the standby
	attached bool // the standby has everything
	asked    bool // InSync=false was said
}

func (w *world) volume(id ha.GuestID) *volume {
	for _, v := range w.guests {
		if v.id == id {
			return v
		}
	}
	return nil
}

// executing checks the invariants when an execution begins or is prolonged.
func (v *volume) executing(h *host, epoch uint64) {
	other := v.w.hosts[1-h.index]
	if other.executes(v.index) {
		v.w.violate("%s runs on %s (epoch %d) and on %s (epoch %d)", v.id, h.id, epoch, other.id, other.machine[v.index].epoch)
	}
	if owner, ok := v.owners[epoch]; ok && owner != h.id {
		v.w.violate("epoch %d of %s was %s's and is now %s's", epoch, v.id, owner, h.id)
	}
	v.owners[epoch] = h.id
	if epoch < v.top {
		v.w.violate("%s runs %s at epoch %d after epoch %d was taken over", h.id, v.id, epoch, v.top)
	}
}

// takenOver checks that nothing acknowledged is lost.
func (v *volume) takenOver(h *host, epoch uint64) {
	r := &v.replica[h.index]
	if epoch > v.top && !v.manual && r.version != v.acked {
		v.w.violate("%s took %s over at epoch %d with version %d, but %d was acknowledged", h.id, v.id, epoch, r.version, v.acked)
	}
	if epoch > v.top {
		v.acked = r.version
		v.manual = false
	}
	v.top = max(v.top, epoch)
	v.started(h, epoch)
}

// started makes the engine of a new execution; it knows nothing of the standby.
func (v *volume) started(h *host, epoch uint64) {
	v.engine = engine{host: h, life: h.life, epoch: epoch}
}

// agentStarted feeds what an agent knows about its replica, and gives a running
// guest a new engine.
func (v *volume) agentStarted(h *host) {
	if h.witness() {
		return
	}
	if r := v.replica[h.index]; r.complete {
		h.soon(ha.CandidateState{Guest: v.id, Ready: true, Epoch: r.epoch, Sequence: r.version}, 100*time.Millisecond)
	}
	if m := h.machine[v.index]; m.alive && m.epoch >= v.engine.epoch {
		v.started(h, m.epoch)
	}
}

// live returns the engine's host if the engine still serves the guest.
func (v *volume) live() *host {
	e := &v.engine
	if e.host == nil || !e.host.running() || e.host.life != e.life {
		return nil
	}
	if m := e.host.machine[v.index]; !m.alive || m.epoch != e.epoch {
		return nil
	}
	return e.host
}

// write is one guest write, replicated or not.
func (v *volume) write() {
	w, e := v.w, &v.engine
	h := v.live()
	if h == nil || !h.executes(v.index) {
		return
	}
	peer := w.hosts[1-h.index]
	switch {
	case e.detached:
		v.acked++
		v.replica[h.index].version = v.acked
	case e.attached && w.linked(h, peer) && v.follows(peer, e.epoch):
		v.acked++
		v.replica[h.index].version = v.acked
		v.replica[peer.index].version = v.acked
	case !e.asked:
		e.asked, e.attached = true, false
		h.deliver(ha.ReplicaState{Guest: v.id, Epoch: e.epoch})
	}
}

// follows says whether the peer accepts replication from the owner of an epoch.
func (v *volume) follows(peer *host, epoch uint64) bool {
	r, ok := peer.records[v.id]
	return ok && r.Epoch == epoch && r.Owner != peer.id && r.Promised == 0 && !r.Gone
}

func (v *volume) detached(h *host, epoch uint64) {
	e := &v.engine
	if v.live() == h && e.epoch == epoch && e.asked {
		e.asked, e.detached = false, true
	}
}

// resync completes the standby's replica, if both sides can.
func (v *volume) resync() {
	w, e := v.w, &v.engine
	h := v.live()
	if h == nil || e.attached || !h.executes(v.index) {
		return
	}
	peer := w.hosts[1-h.index]
	if !w.linked(h, peer) || !v.follows(peer, e.epoch) {
		return
	}
	own := v.replica[h.index]
	v.replica[peer.index] = replica{version: own.version, epoch: e.epoch, complete: true}
	e.attached, e.detached, e.asked = true, false, false
	peer.soon(ha.CandidateState{Guest: v.id, Ready: true, Epoch: e.epoch, Sequence: own.version}, 5*time.Millisecond)
	h.deliver(ha.ReplicaState{Guest: v.id, Epoch: e.epoch, InSync: true})
}

// serve runs the guest's writes and the resynchronisation for ever.
func (v *volume) serve() {
	if v.w.chance(v.busy) {
		v.write()
	}
	if v.w.chance(0.1) {
		v.resync()
	}
	v.measure()
	v.w.after(v.w.between(20*time.Millisecond, 60*time.Millisecond), v.serve)
}

// measure keeps the longest time without execution.
func (v *volume) measure() {
	w := v.w
	if w.hosts[0].executes(v.index) || w.hosts[1].executes(v.index) || !v.want || !v.exists {
		v.silent = w.now
	}
	w.stats.LongestOutage = max(w.stats.LongestOutage, time.Duration(w.now-v.silent))
}
