package sim

import (
	"time"

	"vmctl/ha"
)

// act executes one action that is not durable.
func (h *host) act(a ha.Action) {
	w := h.w
	if w.scripted != nil {
		w.scripted.seen(h, a)
	}
	switch a := a.(type) {
	case ha.Send:
		h.count(a.Message)
		h.honest(a.Message)
		for _, to := range w.hosts {
			if to.id == a.To {
				w.send(h, to, a.Message)
			}
		}
	case ha.Renew:
		if v := w.volume(a.Guest); v != nil {
			h.renew(v, a)
		} else if a.Arm != 0 { // removed by its user, revived by a takeover
			h.soon(ha.Armed{Guest: a.Guest, Arm: a.Arm}, 50*time.Millisecond)
		}
	case ha.TakeOver:
		if w.removed[a.Guest] {
			w.violate("%s takes over %s, of which every voter knows that it was removed", h.id, a.Guest)
		}
		if v := w.volume(a.Guest); v != nil {
			h.takeOver(v, a)
		}
	case ha.Yield:
		if v := w.volume(a.Guest); v != nil {
			w.stats.Yields++
			h.end(v)
		}
	case ha.Detached:
		if v := w.volume(a.Guest); v != nil {
			w.stats.Detached++
			v.detached(h, a.Epoch)
		}
	case ha.Attached:
		w.stats.Attached++
	case ha.Forgotten:
		if v := w.volume(a.Guest); v != nil {
			v.replica[h.index] = replica{}
		}
	case ha.Fence:
		h.fence(a)
	case ha.Reply:
		w.answered(h, a)
	}
}

func (h *host) count(m ha.Message) {
	switch m := m.(type) {
	case ha.Claim:
		h.w.stats.Claims++
	case ha.ClaimReply:
		if !m.OK {
			h.w.stats.Refusals++
		}
	}
}

// renew is the guard's part of Renew, and the start of a guest that should run.
func (h *host) renew(v *volume, a ha.Renew) {
	w := h.w
	if !w.calm && w.chance(0.01) {
		return // the guard's socket failed
	}
	m := &h.machine[v.index]
	rec := h.records[v.id]
	switch {
	case a.Deadline <= h.local():
		return
	case m.stopped > 0:
		return // the guard hears nothing
	case m.alive && m.epoch == a.Epoch:
		if a.Deadline > m.deadline || m.deadline == ha.Forever {
			if !h.executes(v.index) {
				w.stats.Freezes++
			}
			m.deadline = a.Deadline
			v.executing(h, a.Epoch)
		}
	case rec.Run && !rec.Taking && v.want:
		v.start(h, a.Epoch, a.Deadline)
	}
	if a.Arm != 0 {
		h.soon(ha.Armed{Guest: a.Guest, Arm: a.Arm}, 50*time.Millisecond)
	}
}

// takeOver resumes the guest from its last checkpoint, or boots it from its
// disks if there is none.
func (h *host) takeOver(v *volume, a ha.TakeOver) {
	w := h.w
	w.stats.TakeOvers++
	if w.scripted != nil {
		w.scripted.take(h, v, a)
		return
	}
	h.soon(ha.TakenOver{Guest: a.Guest, Epoch: a.Epoch}, 300*time.Millisecond)
	if m := &h.machine[v.index]; m.alive && m.epoch == a.Epoch {
		return // a new agent found it running
	}
	h.end(v)
	m, resumed := v.takenOver(h, a)
	if a.Deadline <= h.local() || !a.Run || !v.want {
		return
	}
	if !resumed {
		v.start(h, a.Epoch, a.Deadline)
		return
	}
	v.begin(h, a.Epoch)
	m.alive, m.epoch, m.deadline = true, a.Epoch, a.Deadline
	h.machine[v.index] = m
	v.executing(h, a.Epoch)
}

// soon feeds a local answer to this life of the agent.
func (h *host) soon(ev ha.Event, within time.Duration) {
	life := h.life
	h.w.after(h.w.between(0, within), func() {
		if h.life == life {
			h.deliver(ev)
		}
	})
}
