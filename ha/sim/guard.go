package sim

import (
	"time"

	"vmctl/ha"
)

// machine is a guest's QEMU under its guard on one host.
type machine struct {
	alive    bool
	epoch    uint64
	deadline ha.Time
	ram      uint64  // the newest write the guest's memory knows of
	boot     uint64  // which boot of the guest this is
	stopped  int     // faults that stop the guard
	since    ha.Time // local time at which the guard was stopped
}

// starting is a guest that may be booted as soon as its replica is outdated.
type starting struct {
	on       bool
	epoch    uint64
	deadline ha.Time
}

// executes says whether a vCPU of the guest may run on this host now. The guard
// is given its full time D to stop it. A stopped guard stops nothing: then the
// agent does, or nobody.
func (h *host) executes(g int) bool {
	m := &h.machine[g]
	if !m.alive || !h.power || h.suspended > 0 {
		return false
	}
	if m.deadline == ha.Forever || (h.w.opt.Broken.NoGuard && !h.running()) {
		return true
	}
	end, now := m.deadline+ha.Time(h.w.timing.Stop), h.local()
	switch {
	case now <= end:
		return true
	case m.stopped > 0:
		return m.since <= end
	}
	return h.w.opt.Broken.LateGuard && now <= h.woken+ha.Time(h.w.timing.Stop)
}

// secondHolder is the agent's own hold on QEMU: it kills a guest that its guard
// does not freeze.
func (h *host) secondHolder() {
	if !h.running() {
		return
	}
	for i := range h.machine {
		m := &h.machine[i]
		if m.alive && m.stopped > 0 && m.deadline != ha.Forever && h.local() > m.deadline {
			h.w.stats.AgentKills++
			h.w.logf("%s agent kills %s, whose guard does not answer", h.id, h.w.guests[i].id)
			h.machine[i] = machine{}
		}
	}
}

// guardStopped says whether a guard of the host is stopped. If its agent is
// stopped, too, nobody enforces a deadline: see DESIGN.md, Known limits.
func (h *host) guardStopped() bool {
	for i := range h.machine {
		if h.machine[i].stopped > 0 {
			return true
		}
	}
	return false
}

// stopGuard stops the guard of a guest's machine for a while.
func (w *world) stopGuard(f Fault) bool {
	h := w.hosts[f.Where]
	m := &h.machine[f.Other]
	if !m.alive || !h.power || h.suspended > 0 || (!h.running() && !w.opt.Broken.BothStopped) {
		return false
	}
	w.stats.GuardStops++
	if m.stopped == 0 {
		m.since = h.local()
	}
	m.stopped++
	epoch, boot := m.epoch, m.boot
	w.after(int64(f.For), func() {
		if m.alive && m.epoch == epoch && m.boot == boot && m.stopped > 0 {
			m.stopped--
		}
	})
	return true
}

// suspend lets a host sleep: nothing runs there, and its clock goes on.
func (w *world) suspend(f Fault) bool {
	h := w.hosts[f.Where]
	if !h.power || (h.guardStopped() && !w.opt.Broken.BothStopped) {
		return false
	}
	w.stats.Suspensions++
	h.suspended++
	power := h.boots
	w.after(int64(f.For), func() {
		if h.boots == power && h.suspended > 0 {
			h.wake()
		}
	})
	return true
}

// wake lets a host go on. The guard has the highest priority and an absolute
// timer, so a guest whose lease ended meanwhile is frozen before it runs.
func (h *host) wake() {
	h.suspended--
	if h.suspended > 0 {
		return
	}
	h.woken = h.local()
	h.w.logf("%s wakes up", h.id)
	for _, v := range h.w.guests {
		if h.executes(v.index) {
			v.executing(h, h.machine[v.index].epoch)
		}
	}
	h.secondHolder()
	h.drain()
}

// start boots a guest from its disks. Before it writes what the replica lacks,
// the replica is durably outdated.
func (v *volume) start(h *host, epoch uint64, deadline ha.Time) {
	s := &v.starting[h.index]
	again := s.on && s.epoch == epoch
	*s = starting{on: true, epoch: epoch, deadline: deadline}
	switch {
	case again:
	case v.w.opt.Broken.SilentBoot && v.w.chance(0.5):
		v.booted(h, false)
	default:
		h.soon(ha.ReplicaState{Guest: v.id, Epoch: epoch}, time.Millisecond)
	}
}

// booted is the instant at which a guest begins to run from its disks.
func (v *volume) booted(h *host, detached bool) {
	s := v.starting[h.index]
	v.starting[h.index] = starting{}
	if s.deadline <= h.local() || !v.want {
		return
	}
	v.begin(h, s.epoch)
	v.engine.detached = detached
	if v.revived {
		v.acked = v.replica[h.index].version
		v.revived = s.epoch < v.top
	}
	v.boots++
	v.current = v.boots
	v.w.stats.Starts++
	h.machine[v.index] = machine{alive: true, epoch: s.epoch, deadline: s.deadline, ram: v.replica[h.index].version, boot: v.boots}
	v.executing(h, s.epoch)
}
