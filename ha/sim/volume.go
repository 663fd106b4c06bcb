package sim

import (
	"fmt"
	"time"

	"vmctl/ha"
)

// volume is a guest's data and the replication engine that keeps it on two
// hosts. Writes are numbered, never twice with the same number.
type volume struct {
	w        *world
	index    int
	id       ha.GuestID
	names    int  // that guests in its place had after the first
	want     bool // the user wants it running
	exists   bool
	level    ha.Level // wanted
	kind     ha.Level // what level is when the user wants any protection
	writes   uint64   // the last number given to a write
	acked    uint64   // the newest write the guest was told is safe
	replica  [nodes]replica
	starting [nodes]starting
	sequence [nodes]uint64 // of checkpoints, stored
	numbered checkpoint    // the last one that got a number
	boots    uint64        // counts boots of the guest
	current  uint64        // the boot that goes on now
	engine   engine
	top      uint64 // highest epoch that was taken over
	owners   map[uint64]ha.NodeID
	manual   bool // an operator promoted it: writes may be lost
	// revived: an operator let a former owner run on that did not know of its
	// end, with the new owner off. What that one wrote since is not the guest's.
	revived bool
	silent  int64
	busy    float64 // how often the guest writes; an idle one stays claimable while cut off
	// storeTrouble: a store failed in this run, so an older version may be
	// written over a newer one that was never acted on.
	storeTrouble bool
}

// engine is the owner's replication, in the memory of its agent.
type engine struct {
	host     *host
	life     uint64
	epoch    uint64
	detached bool   // writes need not reach the standby
	attached bool   // the standby has everything
	asked    bool   // InSync=false was said
	inFlight bool   // a checkpoint is on its way
	known    uint64 // the last checkpoint the standby acknowledged
}

func newVolume(w *world, index int) *volume {
	v := &volume{w: w, index: index, id: ha.GuestID(fmt.Sprintf("g%d", index)), owners: map[uint64]ha.NodeID{}, kind: ha.LevelResume}
	if w.chance(0.25) {
		v.kind = ha.LevelRestart
	}
	v.busy = []float64{1, 0.1, 0.01, 0}[w.rng.IntN(4)]
	return v
}

func (w *world) volume(id ha.GuestID) *volume {
	for _, v := range w.guests {
		if v.id == id {
			return v
		}
	}
	return nil
}

// takenOver makes the standby's replica the guest and says whether it goes on
// with its memory.
func (v *volume) takenOver(h *host, a ha.TakeOver) (machine, bool) {
	if a.Epoch <= v.top {
		return machine{}, false // the order is repeated; the checkpoint is used up
	}
	v.checkTakeOver(h, a.Epoch)
	level := a.Level
	if !a.Run {
		level = ha.LevelRestart
	}
	m, resumed := v.restore(h, a.Epoch, level)
	r := &v.replica[h.index]
	v.acked, v.top, v.manual = r.version, a.Epoch, false
	if resumed {
		v.current = m.boot
	}
	return m, resumed
}

// begin makes the engine of a new execution; it knows nothing of the standby.
func (v *volume) begin(h *host, epoch uint64) {
	v.engine = engine{host: h, life: h.life, epoch: epoch}
}

// agentStarted feeds what an agent knows about its replica, and gives a running
// guest a new engine.
func (v *volume) agentStarted(h *host) {
	if h.witness() {
		return
	}
	v.starting[h.index] = starting{}
	if r := v.replica[h.index]; r.complete && r.memory {
		v.candidate(h)
	}
	if m := h.machine[v.index]; m.alive && m.epoch >= v.engine.epoch {
		v.begin(h, m.epoch)
	}
}

// live returns the engine's host if the engine still serves the guest.
func (v *volume) live() *host {
	e := &v.engine
	if e.host == nil || !e.host.running() || e.host.life != e.life {
		return nil
	}
	if m := &e.host.machine[v.index]; !m.alive || m.epoch != e.epoch {
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
	there := &v.replica[peer.index]
	takes := peer.full <= 0 && w.linked(h, peer) && v.follows(peer, e.epoch)
	switch {
	case e.detached:
	case e.attached && takes:
		there.version = v.writes + 1
	case !e.asked:
		e.asked, e.attached = true, false
		h.deliver(ha.ReplicaState{Guest: v.id, Epoch: e.epoch})
		return
	default:
		return
	}
	v.writes++
	v.acked = v.writes
	v.replica[h.index].version = v.writes
	h.machine[v.index].ram = v.writes
}

// follows says whether the peer accepts replication from the owner of an epoch.
func (v *volume) follows(peer *host, epoch uint64) bool {
	r, ok := peer.records[v.id]
	return ok && r.Epoch == epoch && r.Owner != peer.id && r.Promised == 0 && !r.Gone
}

// detached: the replica is durably outdated, so a guest may be booted or go on
// writing without it.
func (v *volume) detached(h *host, epoch uint64) {
	e := &v.engine
	if s := v.starting[h.index]; s.on && s.epoch == epoch {
		v.booted(h, true)
		return
	}
	if e.host == h && e.life == h.life && e.epoch == epoch && e.asked {
		e.asked, e.detached = false, true
	}
}

// resync completes the standby's replica, if both sides can, and makes the
// first checkpoint.
func (v *volume) resync() {
	w, e := v.w, &v.engine
	h := v.live()
	if h == nil || e.attached || !h.executes(v.index) {
		return
	}
	peer := w.hosts[1-h.index]
	if !w.linked(h, peer) || !v.follows(peer, e.epoch) || peer.full > 0 || peer.broken > 0 {
		return
	}
	c, ok := v.capture(h)
	if !ok {
		return
	}
	v.replica[peer.index] = replica{version: v.replica[h.index].version, epoch: e.epoch, complete: true}
	if !v.commit(peer, c) {
		return
	}
	e.attached, e.detached, e.asked, e.known = true, false, false, c.number
	h.deliver(ha.ReplicaState{Guest: v.id, Epoch: e.epoch, InSync: true})
}

// serve runs the guest's writes, its checkpoints and the resynchronisation for
// ever.
func (v *volume) serve() {
	if v.w.chance(v.busy) {
		v.write()
	}
	if v.w.chance(0.1) {
		v.resync()
	}
	if v.w.chance(0.1) || v.lostMemory() {
		v.protect()
	}
	v.measure()
	v.w.after(v.w.between(20*time.Millisecond, 60*time.Millisecond), v.serve)
}

// lostMemory says whether the standby has booted since the last checkpoint.
func (v *volume) lostMemory() bool {
	e := &v.engine
	return e.attached && e.host != nil && !v.replica[1-e.host.index].memory
}

// measure keeps the longest time without execution.
func (v *volume) measure() {
	w := v.w
	if w.hosts[0].executes(v.index) || w.hosts[1].executes(v.index) || !v.want || !v.exists {
		v.silent = w.now
	}
	w.stats.LongestOutage = max(w.stats.LongestOutage, time.Duration(w.now-v.silent))
}
