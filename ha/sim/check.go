package sim

import "vmctl/ha"

// check looks at the world after every event: no guest executes twice.
func (w *world) check() {
	a, b := w.hosts[0], w.hosts[1]
	for i := range w.guests {
		if a.machine[i].alive && b.machine[i].alive && a.executes(i) && b.executes(i) {
			w.guests[i].twice(a, b)
		}
	}
}

func (v *volume) twice(h, other *host) {
	v.w.violate("%s runs on %s (epoch %d) and on %s (epoch %d)", v.id,
		h.id, h.machine[v.index].epoch, other.id, other.machine[v.index].epoch)
}

// executing checks what must hold when an execution begins or is prolonged.
func (v *volume) executing(h *host, epoch uint64) {
	if other := v.w.hosts[1-h.index]; other.executes(v.index) {
		v.twice(h, other)
	}
	if owner, ok := v.owners[epoch]; ok && owner != h.id {
		v.w.violate("epoch %d of %s was %s's and is now %s's", epoch, v.id, owner, h.id)
	}
	v.owners[epoch] = h.id
	if epoch < v.top && !v.revived {
		v.w.violate("%s runs %s at epoch %d after epoch %d was taken over", h.id, v.id, epoch, v.top)
	}
}

// checkTakeOver: at an automatic takeover or a handover nothing acknowledged is
// lost, and the replica counted.
func (v *volume) checkTakeOver(h *host, epoch uint64) {
	r, e := &v.replica[h.index], &v.engine
	switch {
	case v.manual:
	case r.version != v.acked:
		v.w.violate("%s took %s over at epoch %d with version %d, but %d was acknowledged", h.id, v.id, epoch, r.version, v.acked)
	case e.host != nil && e.host != h && e.epoch+1 == epoch && e.detached:
		v.w.violate("%s took %s over at epoch %d with a replica that was outdated", h.id, v.id, epoch)
	}
}

func (v *volume) checkRestart(h *host, epoch uint64) {
	if r := v.replica[h.index]; !v.manual && !r.complete {
		v.w.violate("%s starts %s at epoch %d from images that are not whole", h.id, v.id, epoch)
	}
}

// checkResume: only a complete checkpoint is resumed, its memory with its
// disks, none older than the owner was told of, and none of an earlier boot.
func (v *volume) checkResume(h *host, epoch uint64, c checkpoint) {
	r := &v.replica[h.index]
	switch {
	case !c.complete:
		v.w.violate("%s resumes %s from a checkpoint that is not complete: %+v", h.id, v.id, c)
	case r.version != c.ram:
		v.w.violate("%s resumes %s with the memory of write %d and the disks of write %d", h.id, v.id, c.ram, r.version)
	case v.manual:
	case v.engine.epoch+1 == epoch && v.engine.host != h && (c.epoch != v.engine.epoch || c.number < v.engine.known):
		v.w.violate("%s resumes %s from checkpoint %+v, but number %d was acknowledged", h.id, v.id, c, v.engine.known)
	case c.boot != v.current:
		v.w.violate("%s resumes %s from a void checkpoint: the guest was booted since (%d, now %d)", h.id, v.id, c.boot, v.current)
	}
}

// honest checks that a message says nothing that is not stored.
func (h *host) honest(m ha.Message) {
	lenient := h.w.opt.Prepare != nil
	switch m := m.(type) {
	case ha.Heartbeat:
		for i := range m.Renewals {
			r := &m.Renewals[i]
			if s := h.records[r.Guest]; s.Epoch != r.Epoch || s.Rev != r.Rev || s.Owner != h.id {
				h.w.violate("%s renews %+v but stored %+v", h.id, *r, s)
			}
		}
	case ha.Ack:
		for i := range m.Grants {
			g := &m.Grants[i]
			if !g.OK {
				continue
			}
			s, known := h.records[g.Guest]
			if known && (s.Epoch != g.Epoch || s.Rev < g.Rev || (s.Promised > g.Epoch && !lenient)) {
				h.w.violate("%s acknowledges %+v but stored %+v", h.id, *g, s)
			}
		}
	case ha.Claim:
		if s := h.records[m.Guest]; s.Promised != m.Epoch && !lenient {
			h.w.violate("%s claims %+v but stored %+v", h.id, m, s)
		}
	case ha.ClaimReply:
		if s := h.records[m.Guest]; m.OK && (s.Epoch != m.Epoch || s.Owner == h.id) {
			h.w.violate("%s grants %+v but stored %+v", h.id, m, s)
		}
	}
}
