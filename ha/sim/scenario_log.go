package sim

import (
	"fmt"
	"time"

	"vmctl/ha"
)

// sighting is what was last seen of a guest.
type sighting struct {
	on   [nodes]state
	lost int64 // since when it executes nowhere; 0: it does
	away time.Duration
	gone uint64 // acknowledged writes that a promotion gave up
}

// state is what a guest does on a host.
type state string

const (
	absent state = ""
	runs   state = "runs"
	frozen state = "is frozen"
)

func (st *stage) clock() string {
	return fmt.Sprintf("%9.3f", float64(st.w.now-st.begin)/1e9)
}

func (st *stage) say(who, format string, args ...any) {
	fmt.Fprintf(&st.log, "%s %-9s %s\n", st.clock(), who, fmt.Sprintf(format, args...))
}

func (st *stage) tell(h *host, v *volume, format string, args ...any) {
	st.say(string(h.id), "%s: %s", v.id, fmt.Sprintf(format, args...))
}

// heard logs an action, as far as a person would want to know.
func (st *stage) heard(h *host, a ha.Action) {
	who := string(h.id)
	switch a := a.(type) {
	case ha.Note:
		st.said[a.Verdict]++
		st.say(who, "%s: %s: %s", a.Guest, a.Verdict, a.Reason)
	case ha.Alarm:
		if s := st.starterOf(h); s != nil {
			s.alarmed(a)
		}
		st.say(who, "%s", alarmText(a))
	case ha.Renew:
		if s := st.starterOf(h); s != nil {
			s.leases[a.Guest] = lease{a.Epoch, a.Deadline}
		}
	case ha.TakeOver:
		st.takes(h, a)
	case ha.Yield:
		st.say(who, "%s: yields to %s at epoch %d", a.Guest, a.Owner, a.Epoch)
	case ha.Detached:
		st.say(who, "%s: the replica is durably outdated, writes go on without it", a.Guest)
	case ha.Attached:
		st.say(who, "%s: the replica is complete", a.Guest)
	case ha.Forgotten:
		st.say(who, "%s: forgotten, its owner removed it", a.Guest)
	case ha.PersistCluster:
		st.say(who, "cluster: %s", clusterText(a.Cluster))
	case ha.Reply:
		st.reply(a)
	}
}

func alarmText(a ha.Alarm) string {
	name := string(a.Kind)
	if a.Guest != "" {
		name += " " + string(a.Guest)
	}
	if !a.On {
		return "alarm over: " + name
	}
	return "ALARM " + name + ": " + a.Text
}

// takes logs a takeover and counts what it gives up.
func (st *stage) takes(h *host, a ha.TakeOver) {
	v := st.w.volume(a.Guest)
	if v == nil {
		return
	}
	how := map[bool]string{true: "to run", false: "to stay stopped"}[a.Run]
	st.tell(h, v, "takes over at epoch %d, %s", a.Epoch, how)
	if have := v.replica[h.index].version; a.Epoch > v.top && have < v.acked {
		st.seen[v.index].gone += v.acked - have
		st.tell(h, v, "acknowledged writes are given up")
	}
}

// reply hands the core's answer to the user who asked.
func (st *stage) reply(r ha.Reply) {
	q, known := st.asked[r.ID]
	if !known {
		return
	}
	delete(st.asked, r.ID)
	if q.text != "" {
		st.answer(q.text, r)
	}
	if q.then != nil {
		q.then(r)
	}
}

func (st *stage) answer(text string, r ha.Reply) {
	result := "done"
	if r.Code != ha.OK {
		result = fmt.Sprintf("refused (%s)", r.Code)
	}
	if r.Text != "" {
		result += ": " + r.Text
	}
	st.say("user", "%s: %s", text, result)
}

// observe logs what guards and guests do, which no action tells, and lets the
// planners see it.
func (st *stage) observe() {
	st.watch()
	for _, h := range st.w.hosts[:nodes] {
		if s := st.starterOf(h); s != nil && s.alive() {
			s.look()
		}
	}
}

// watch logs what guards and guests do.
func (st *stage) watch() {
	for _, v := range st.w.guests {
		s := &st.seen[v.index]
		executing := false
		for i, h := range st.w.hosts[:nodes] {
			m := &h.machine[v.index]
			now := absent
			switch {
			case st.executes(h, v):
				now, executing = runs, true
				st.wake(h, m.deadline)
			case m.alive:
				now = frozen
			}
			if was := s.on[i]; was != now {
				s.on[i] = now
				v.want = v.want && !m.alive
				st.changed(h, v, was, now)
			}
		}
		switch {
		case executing && s.lost != 0:
			s.away = max(s.away, time.Duration(st.w.now-s.lost))
			s.lost = 0
		case !executing && s.lost == 0:
			s.lost = st.w.now
		}
	}
}

func (st *stage) changed(h *host, v *volume, was, now state) {
	m := h.machine[v.index]
	switch {
	case now == frozen && h.suspended > 0:
		st.tell(h, v, "stands still with its host")
	case now == frozen:
		st.tell(h, v, "the guard freezes it, the lease of epoch %d ended", m.epoch)
	case was == frozen && now == runs:
		st.tell(h, v, "the guard thaws it, epoch %d", m.epoch)
	case now == runs:
		st.tell(h, v, "runs, epoch %d", m.epoch)
	case st.giving[v]:
		st.tell(h, v, "is stopped for its last checkpoint")
	case !h.power:
		st.tell(h, v, "is gone with its host")
	default:
		st.tell(h, v, "ended here")
	}
}

// wake makes the world stop at a deadline, so that it is seen on the instant.
func (st *stage) wake(h *host, deadline ha.Time) {
	if deadline == ha.Forever || st.woken[deadline] {
		return
	}
	st.woken[deadline] = true
	left := int64(deadline - h.local())
	st.w.after(left-left/1_000_000*h.ppm+1, func() {})
}

// summary ends the log with how it stands.
func (st *stage) summary() {
	st.say("==", "end")
	for _, v := range st.w.guests {
		r, known := st.newest(v.id)
		if !known {
			st.say("end", "%s: nobody has it", v.id)
			continue
		}
		on := "nowhere"
		if list := st.runsOn(v); len(list) > 0 {
			on = "on " + fmt.Sprint(list)[1:len(fmt.Sprint(list))-1]
		}
		replica := "in sync"
		if !v.engine.attached || r.Outdated {
			replica = "outdated"
		}
		s := &st.seen[v.index]
		st.say("end", "%s: runs %s, epoch %d of %s, replica %s, longest away %s, writes given up: %d",
			v.id, on, r.Epoch, r.Owner, replica, st.away(v), s.gone)
	}
}

// away is the longest time in which a guest executed nowhere.
func (st *stage) away(v *volume) time.Duration {
	s := &st.seen[v.index]
	d := s.away
	if s.lost != 0 {
		d = max(d, time.Duration(st.w.now-s.lost))
	}
	return d.Round(time.Millisecond)
}
