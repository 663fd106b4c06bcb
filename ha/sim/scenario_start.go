package sim

import (
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

// start carries a Start out, as soon as the lease allows.
func (s *starter) start(a recovery.Start) {
	st, v := s.st, s.st.w.volume(a.ID)
	r := s.h.records[a.ID]
	if !s.alive() || v == nil || r.Epoch != a.Epoch || r.Owner != s.h.id || r.Gone {
		return
	}
	deadline := s.leases[a.ID].deadline
	if !r.Run {
		s.step(recovery.Ended{ID: a.ID})
		return
	}
	if deadline <= s.h.local() {
		st.after(writeEvery, func() { s.start(a) })
		return
	}
	taking, isTaking := s.taking[a.ID]
	if isTaking && a.How == recovery.Restart {
		taking.Level = ha.LevelRestart
	}
	if fault := st.fault(s.h, v, a.How); fault != "" {
		st.after(failTakes, func() {
			if s.alive() {
				s.step(recovery.Failed{ID: a.ID, How: a.How, Reason: fault})
			}
		})
		return
	}
	s.starts[a.ID] = running{a, st.w.now}
	if isTaking {
		delete(s.taking, a.ID)
		m, resumed := v.takenOver(s.h, taking)
		s.h.deliver(ha.TakenOver{Guest: a.ID, Epoch: a.Epoch})
		if resumed {
			v.begin(s.h, a.Epoch)
			m.alive, m.epoch, m.deadline = true, a.Epoch, deadline
			s.h.machine[v.index] = m
			v.executing(s.h, a.Epoch)
			return
		}
	}
	v.want = true
	v.start(s.h, a.Epoch, deadline)
}

// takeOver is the order to resume a guest, or to keep it stopped.
func (st *stage) takeOver(h *host, v *volume, a ha.TakeOver) {
	done := ha.TakenOver{Guest: v.id, Epoch: a.Epoch}
	s := st.starterOf(h)
	if s != nil {
		s.leases[v.id] = lease{a.Epoch, a.Deadline}
	}
	switch m := &h.machine[v.index]; {
	case m.alive && m.epoch == a.Epoch: // a new agent found it running
		h.soon(done, startTakes)
	case !a.Run:
		h.end(v)
		v.takenOver(h, a)
		h.soon(done, startTakes)
	case s != nil:
		h.end(v)
		s.taking[v.id] = a
	}
}

// died tells that a guest's QEMU ended by itself.
func (st *stage) died(h *host, v *volume, why string) {
	s := st.starterOf(h)
	if s == nil {
		return
	}
	last := s.starts[v.id]
	st.observe()
	if last.FailedBy(time.Duration(st.w.now-last.since), recovery.DefaultTiming()) {
		s.look()
		s.step(recovery.Failed{ID: v.id, How: last.How, Reason: why})
		return
	}
	st.after(restartWait, func() {
		if s.alive() {
			s.step(recovery.Ended{ID: v.id})
		}
	})
}

// fault says why a start fails, if it does.
func (st *stage) fault(h *host, v *volume, how recovery.How) string {
	if text := st.broken[v.id]; text != "" && (st.brokenOn[v.id] == "" || st.brokenOn[v.id] == h.id) && (how == recovery.Resume || !st.resumeOnly[v.id]) {
		return text
	}
	return ""
}
