package sim

import (
	"time"

	"vmctl/ha"
)

// act executes one action that is not durable.
func (h *host) act(a ha.Action) {
	w := h.w
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
		if v := w.volume(a.Guest); v != nil {
			h.takeOver(v, a)
		}
	case ha.Yield:
		if v := w.volume(a.Guest); v != nil {
			w.stats.Yields++
			h.machine[v.index] = machine{}
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

// honest checks that a message says nothing that is not stored.
func (h *host) honest(m ha.Message) {
	switch m := m.(type) {
	case ha.Heartbeat:
		for _, r := range m.Renewals {
			if s := h.records[r.Guest]; s.Epoch != r.Epoch || s.Rev != r.Rev || s.Owner != h.id {
				h.w.violate("%s renews %+v but stored %+v", h.id, r, s)
			}
		}
	case ha.Ack:
		for _, g := range m.Grants {
			s, known := h.records[g.Guest]
			if g.OK && known && (s.Epoch != g.Epoch || s.Rev < g.Rev || (s.Promised > g.Epoch && h.w.opt.Prepare == nil)) {
				h.w.violate("%s acknowledges %+v but stored %+v", h.id, g, s)
			}
		}
	case ha.Claim:
		if s := h.records[m.Guest]; s.Promised != m.Epoch && h.w.opt.Prepare == nil {
			h.w.violate("%s claims %+v but stored %+v", h.id, m, s)
		}
	case ha.ClaimReply:
		if s := h.records[m.Guest]; m.OK && (s.Epoch != m.Epoch || s.Owner == h.id) {
			h.w.violate("%s grants %+v but stored %+v", h.id, m, s)
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
	case m.alive && m.epoch == a.Epoch:
		if a.Deadline > m.deadline || m.deadline == ha.Forever {
			if !h.executes(v.index) {
				w.stats.Freezes++
			}
			m.deadline = a.Deadline
			v.executing(h, a.Epoch)
		}
	case rec.Run && !rec.Taking && v.want:
		w.stats.Starts++
		*m = machine{alive: true, epoch: a.Epoch, deadline: a.Deadline}
		v.started(h, a.Epoch)
		v.executing(h, a.Epoch)
	}
	if a.Arm != 0 {
		h.soon(ha.Armed{Guest: a.Guest, Arm: a.Arm}, 50*time.Millisecond)
	}
}

func (h *host) takeOver(v *volume, a ha.TakeOver) {
	w := h.w
	w.stats.TakeOvers++
	m := &h.machine[v.index]
	*m = machine{}
	v.takenOver(h, a.Epoch)
	if a.Deadline > h.local() && a.Run && v.want {
		*m = machine{alive: true, epoch: a.Epoch, deadline: a.Deadline}
		v.executing(h, a.Epoch)
	}
	h.soon(ha.TakenOver{Guest: a.Guest, Epoch: a.Epoch}, 300*time.Millisecond)
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
