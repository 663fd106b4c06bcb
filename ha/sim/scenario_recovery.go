package sim

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

// starter is what a node does around its planner of starts, as long as one
// agent lives.
type starter struct {
	st      *stage
	h       *host
	life    uint64
	planner *recovery.Planner
	told    map[ha.GuestID]glance
	looking bool // the agent has just started
	peer    recovery.Peer
	health  recovery.Health
	taking  map[ha.GuestID]ha.TakeOver // ordered, and not carried out yet
	starts  map[ha.GuestID]running     // the last Start, and when it came to run
	leases  map[ha.GuestID]lease       // the last ones
	alarms  map[ha.GuestID][]ha.AlarmKind
}

type lease struct {
	epoch    uint64
	deadline ha.Time
}

type running struct {
	recovery.Start
	since int64
}

const (
	starterTick = 100 * time.Millisecond
	startTakes  = 100 * time.Millisecond // a resume or the launch of QEMU
	failTakes   = time.Second            // until a start is known to have failed
	restartWait = 2 * time.Second        // before a guest that ended is started again
)

// starterOf is the planner of the agent that runs on a host now.
func (st *stage) starterOf(h *host) *starter {
	if h.witness() || !h.power || !h.agent {
		return nil
	}
	s := st.starters[h.index]
	if s == nil || s.life != h.life {
		s = &starter{
			st: st, h: h, life: h.life, planner: recovery.New(string(h.id), recovery.DefaultTiming()),
			told: map[ha.GuestID]glance{}, taking: map[ha.GuestID]ha.TakeOver{}, starts: map[ha.GuestID]running{}, leases: map[ha.GuestID]lease{}, alarms: map[ha.GuestID][]ha.AlarmKind{},
		}
		st.starters[h.index] = s
		s.looking = true
		s.look()
		s.looking = false
		s.tick()
	}
	return s
}

func (s *starter) alive() bool { return s.h.running() && s.h.life == s.life }

// tick shows the planner the time, the peer and the alarms.
func (s *starter) tick() {
	if s.h.life != s.life {
		return
	}
	if s.alive() {
		s.look()
		s.around()
		s.step(recovery.Tick{})
	}
	s.st.after(starterTick, s.tick)
}

func (s *starter) step(e recovery.Event) {
	for _, a := range s.planner.Step(s.h.local(), e) {
		s.execute(a)
	}
}

func (s *starter) around() {
	st, other := s.st, s.st.other(s.h)
	core, ok := s.h.step.(*ha.Core)
	if !ok {
		return
	}
	status := core.Status()
	heard := status.PeerHeard != 0 && status.Now-status.PeerHeard <= ha.Time(st.w.timing.Window())
	peer := recovery.Peer{Name: string(other.id), Up: heard, Maintenance: st.upkeep[other]}
	if heard && st.w.linked(s.h, other) {
		peer.Alarm = st.starterOf(other).alarm("")
		for _, v := range st.w.guests {
			if other.machine[v.index].alive {
				peer.Running = append(peer.Running, v.id)
			}
		}
	}
	if !reflect.DeepEqual(peer, s.peer) {
		s.peer = peer
		s.step(peer)
	}
	if health := (recovery.Health{Alarm: s.alarm("")}); health != s.health {
		s.health = health
		s.step(health)
	}
}

// look tells what has changed about the guests, and what the peer is doing
// before that: a takeover follows from it.
func (s *starter) look() {
	var news []recovery.Event
	for _, v := range s.st.w.guests {
		r, known := s.h.records[v.id]
		_, told := s.told[v.id]
		switch {
		case known:
			if g := s.glance(v, r); g != s.told[v.id] {
				s.told[v.id] = g
				news = append(news, s.facts(v, g))
			}
		case told:
			delete(s.told, v.id)
			news = append(news, recovery.Gone{ID: v.id})
		}
	}
	if len(news) > 0 {
		s.around()
	}
	for _, e := range news {
		s.step(e)
	}
}

// glance is what can change about a guest.
type glance struct {
	rec                            ha.Record
	taking, alive, looking, synced bool
	resumable                      bool
	gaveUp, alarm                  string
}

// glance looks at a guest. One that was taken over is looked at
// only when the core has ordered how: until then it has neither its lease nor
// its memory.
func (s *starter) glance(v *volume, r ha.Record) glance {
	taking, ordered := s.taking[v.id]
	g := glance{rec: r, taking: ordered && taking.Epoch == r.Epoch, alive: s.h.machine[v.index].alive, alarm: s.alarm(v.id)}
	g.rec.Rev = 0
	g.resumable = g.taking && taking.Level != ha.LevelRestart && v.replica[s.h.index].memory
	g.looking = r.Owner == s.h.id && (s.looking || !g.taking && s.leases[v.id].epoch != r.Epoch)
	g.synced = v.live() == s.h && v.engine.attached && r.Level == ha.LevelResume
	g.gaveUp = s.st.gaveUp[s.h][v.id]
	return g
}

// facts is a guest as the planner sees it.
func (s *starter) facts(v *volume, g glance) recovery.Guest {
	line := s.st.set.guests[v.index]
	return recovery.Guest{
		ID: v.id, Name: string(v.id), Policy: line.policy, Home: string(line.on), Run: g.rec.Run && !g.rec.Gone,
		Mine: g.rec.Owner == s.h.id && !g.rec.Gone, Epoch: g.rec.Epoch, Covered: g.rec.Level != ha.LevelNone,
		Taking: g.taking, Resumable: g.resumable, Running: g.alive, Looking: g.looking, GaveUp: g.gaveUp,
		Synced: g.synced, Alarm: g.alarm,
	}
}

func (s *starter) execute(a recovery.Action) {
	st := s.st
	switch a := a.(type) {
	case recovery.Start:
		st.after(startTakes, func() { s.start(a) })
	case recovery.Remember:
		if st.gaveUp[s.h] == nil {
			st.gaveUp[s.h] = map[ha.GuestID]string{}
		}
		st.gaveUp[s.h][a.ID] = a.GaveUp
	case recovery.GoHome:
		st.handOver("", st.w.volume(a.ID), false, 0, func(r ha.Reply) {
			done := recovery.WentHome{ID: a.ID}
			if r.Code != ha.OK {
				done.Err = r.Text
			}
			if s.alive() {
				s.step(done)
			}
		})
	case recovery.Alarm:
		name := string(a.Kind) + " " + string(a.ID)
		st.standing[s.h] = strings.ReplaceAll(st.standing[s.h], name+"\n", "")
		if a.On {
			st.standing[s.h] += name + "\n"
		}
		st.say(string(s.h.id), "%s", alarmText(ha.Alarm{Kind: ha.AlarmKind(a.Kind), Guest: a.ID, On: a.On, Text: a.Text}))
	case recovery.Note:
		st.said[ha.Verdict(a.Word)]++
		st.say(string(s.h.id), "%s: %s: %s", a.ID, a.Word, a.Text)
	}
}

// alarm is what stands against a guest on a node, or with no guest against the
// node itself.
func (s *starter) alarm(id ha.GuestID) string {
	if s == nil || len(s.alarms[id]) == 0 {
		return ""
	}
	return string(s.alarms[id][0])
}

func (s *starter) alarmed(a ha.Alarm) {
	list := slices.DeleteFunc(s.alarms[a.Guest], func(k ha.AlarmKind) bool { return k == a.Kind })
	if a.On {
		list = append(list, a.Kind)
	}
	s.alarms[a.Guest] = list
}
