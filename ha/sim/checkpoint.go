package sim

import (
	"time"

	"vmctl/ha"
)

// checkpoint is memory and disks of one instant of a guest.
type checkpoint struct {
	epoch, number uint64
	ram, disk     uint64 // the newest write that each of them has
	boot          uint64 // of the guest
	complete      bool
}

// replica is what a host has of a guest: its images and, on the standby, the
// last checkpoint and the way back to it.
type replica struct {
	version  uint64     // the newest write in the images
	epoch    uint64     // of the owner that feeds them
	complete bool       // the images are whole
	last     checkpoint // the last one committed
	memory   bool       // its memory is there: it does not outlive a boot of the host
}

// protect makes a checkpoint now and then, and one when the standby has lost
// its memory.
func (v *volume) protect() {
	w, e := v.w, &v.engine
	h := v.live()
	if h == nil || !e.attached || e.inFlight || !h.executes(v.index) {
		return
	}
	peer := w.hosts[1-h.index]
	if !w.linked(h, peer) || !v.follows(peer, e.epoch) {
		return
	}
	c, ok := v.capture(h)
	if !ok {
		return
	}
	e.inFlight = true
	id, life, copyOf := v.id, h.life, &v.replica[peer.index]
	if w.opt.Broken.TornCheckpoint {
		copyOf.last, copyOf.memory = c, true // before its memory is there
	}
	w.after(w.between(2*time.Millisecond, 150*time.Millisecond), func() {
		if v.id != id {
			return
		}
		if v.live() == h && h.life == life && e.epoch == c.epoch {
			e.inFlight = false
		}
		if v.commit(peer, c) && v.live() == h && h.life == life && w.linked(h, peer) {
			e.known = c.number
		}
	})
}

// capture takes a checkpoint of the running guest. Its number is stored first.
func (v *volume) capture(h *host) (checkpoint, bool) {
	if h.broken > 0 || h.full > 0 {
		return checkpoint{}, false
	}
	m := &h.machine[v.index]
	n := &v.sequence[h.index]
	if v.w.opt.Broken.ReusedNumber && v.engine.known == 0 {
		*n = 0
	}
	*n++
	c := checkpoint{epoch: m.epoch, number: *n, ram: m.ram, disk: v.replica[h.index].version, boot: m.boot}
	if c.epoch < v.numbered.epoch || (c.epoch == v.numbered.epoch && c.number <= v.numbered.number) {
		v.w.violate("%s uses the number %d of epoch %d again", v.id, c.number, c.epoch)
	}
	v.numbered = c
	return c, true
}

// commit is the standby's: all of it came, the disks have reached its marker,
// and it is durable.
func (v *volume) commit(peer *host, c checkpoint) bool {
	r := &v.replica[peer.index]
	if !peer.running() || peer.broken > 0 || peer.full > 0 || !v.follows(peer, c.epoch) {
		return false
	}
	if !r.complete || r.epoch != c.epoch || r.version < c.disk || (r.last.epoch == c.epoch && r.last.number > c.number) {
		return false
	}
	c.complete = true
	r.last, r.memory = c, true
	v.w.stats.Checkpoints++
	v.candidate(peer)
	return true
}

// candidate tells the standby's core what could be resumed.
func (v *volume) candidate(h *host) {
	r := v.replica[h.index]
	h.soon(ha.CandidateState{Guest: v.id, Ready: r.complete && r.memory, Epoch: r.epoch, Sequence: r.last.number}, 5*time.Millisecond)
}

// restore makes the replica of a host the guest, at a takeover: a resumed guest
// goes back to the checkpoint, with its disks; a restarted one keeps the newest
// write. It says whether the guest goes on with its memory.
func (v *volume) restore(h *host, epoch uint64, level ha.Level) (machine, bool) {
	r := &v.replica[h.index]
	c := r.last
	if level != ha.LevelResume && level != ha.LevelFT || !r.memory {
		v.w.stats.Restarts++
		v.checkRestart(h, epoch)
		return machine{}, false
	}
	v.w.stats.Resumes++
	if !v.w.opt.Broken.MixedCheckpoint {
		r.version = c.disk
	}
	v.checkResume(h, epoch, c)
	return machine{ram: c.ram, boot: c.boot}, true
}
