package sim

import (
	"fmt"
	"strings"
	"time"

	"vmctl/ha"
)

// stage is the world of a scenario, what a node does around its core, and the
// log of what was decided. Times of the log count from the story's beginning.
type stage struct {
	w       *world
	set     settings
	resync  time.Duration // how long it takes to complete a replica
	begin   int64
	log     strings.Builder
	engines []replication // by guest
	seen    []sighting    // by guest
	woken   map[ha.Time]bool
	asked   map[uint64]request
	lastAsk uint64
	giving  map[*volume]bool // stopped for the last checkpoint

	starters   [nodes]*starter
	gaveUp     map[*host]map[ha.GuestID]string
	standing   map[*host]string      // alarms of the planner, a line each
	broken     map[ha.GuestID]string // why its starts fail
	brokenOn   map[ha.GuestID]ha.NodeID
	resumeOnly map[ha.GuestID]bool
	said       map[ha.Verdict]int                         // how often
	severed    [nodes + witnesses][nodes + witnesses]bool // links that were cut one by one
	switched   bool                                       // the switch is off
	device     map[ha.NodeID]string                       // why a host cannot be switched off; "": it can
	upkeep     map[*host]bool                             // nodes in maintenance
}

// request is a user's command that waits for the core's reply, which is logged
// if it has a text.
type request struct {
	text string
	then func(ha.Reply)
}

// The setting up of a story is not part of its log. Afterwards the guests have
// run for long enough to count as well started.
const settingUp = 15 * time.Second

func newStage(s *Scenario) (*stage, error) {
	w := newWorld(Options{Guests: len(s.set.guests), Quiet: true, Mode: s.set.mode, Timing: ha.DefaultTiming()})
	st := &stage{
		w: w, set: s.set, resync: time.Second, woken: map[ha.Time]bool{}, gaveUp: map[*host]map[ha.GuestID]string{}, standing: map[*host]string{},
		broken: map[ha.GuestID]string{}, brokenOn: map[ha.GuestID]ha.NodeID{}, resumeOnly: map[ha.GuestID]bool{}, said: map[ha.Verdict]int{}, asked: map[uint64]request{},
		upkeep: map[*host]bool{}, giving: map[*volume]bool{}, device: map[ha.NodeID]string{},
		engines: make([]replication, len(w.guests)), seen: make([]sighting, len(w.guests)),
	}
	w.scripted = &script{seen: st.heard, take: st.takeOver, shoot: st.fence}
	w.noise()
	for i, h := range w.hosts {
		h.cluster.Mode, h.cluster.Bias, h.cluster.FenceDelay = s.set.mode, s.set.bias, s.set.delay
		h.offset, h.ppm = int64(1000*time.Hour)*int64(i+1), s.set.ppm[h.id]
		w.after(int64(i)*int64(31*time.Millisecond), h.startAgent)
	}
	for i, g := range s.set.guests {
		v := w.guests[i]
		v.id, v.level, v.kind, v.busy = g.id, g.level, g.level, 1
		v.want, v.exists = false, true // the planner says when it starts
		if g.idle {
			v.busy = 0
		}
		if !g.later {
			st.after(time.Second, func() { st.host(g.on).deliver(own(g, 0)) })
		}
		st.serve(v)
	}
	st.until(settingUp)
	st.begin, st.resync = w.now, s.set.resync
	st.log.Reset()
	for i := range st.seen {
		st.seen[i].away = 0
	}
	return st, st.setUp()
}

func own(g guestLine, id uint64) ha.Own {
	return ha.Own{ID: id, Record: ha.Record{Guest: g.id, Run: true, Level: g.level}}
}

// setUp says what kept the story from a good beginning.
func (st *stage) setUp() error {
	if st.w.fail != nil {
		return st.w.fail
	}
	for i, g := range st.set.guests {
		v := st.w.guests[i]
		if g.later {
			continue
		}
		if !st.executes(st.host(g.on), v) || g.level != ha.LevelNone && !v.engine.attached {
			return fmt.Errorf("%s does not run in sync on %s before the story begins", g.id, g.on)
		}
	}
	return nil
}

// until plays the world up to a time of the story and looks at it whenever
// something happened.
func (st *stage) until(at time.Duration) {
	end := st.begin + int64(at)
	for len(st.w.queue) > 0 && st.w.queue[0].at <= end && st.w.fail == nil {
		st.w.until(st.w.queue[0].at)
		st.observe()
	}
	st.w.until(end)
}

func (st *stage) after(d time.Duration, run func()) { st.w.after(int64(d), run) }

func (st *stage) host(id ha.NodeID) *host {
	for _, h := range st.w.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

func (st *stage) other(h *host) *host { return st.w.hosts[1-h.index] }

// executes says whether the guard of a host lets the guest run now.
func (st *stage) executes(h *host, v *volume) bool {
	m := &h.machine[v.index]
	return h.power && m.alive && h.suspended == 0 && (m.deadline == ha.Forever || h.local() < m.deadline)
}

// runsOn lists the nodes on which a guest executes.
func (st *stage) runsOn(v *volume) []ha.NodeID {
	var on []ha.NodeID
	for _, h := range st.w.hosts[:nodes] {
		if st.executes(h, v) {
			on = append(on, h.id)
		}
	}
	return on
}

// newest is what the nodes' stores say about a guest, the higher epoch first.
func (st *stage) newest(id ha.GuestID) (ha.Record, bool) {
	a, known := st.w.hosts[0].records[id]
	b, also := st.w.hosts[1].records[id]
	if also && (!known || b.Epoch > a.Epoch || b.Epoch == a.Epoch && b.Rev > a.Rev) {
		return b, true
	}
	return a, known
}

// replication is what a node's engine does beyond the model of a volume: it
// waits a second for a silent peer, and a replica takes time to complete.
type replication struct {
	silent   int64 // since when the peer does not take writes
	syncing  int64 // when the replica will be complete; 0: nothing under way
	peerLife uint64
	due      int64 // when the next checkpoint is
}

const (
	checkpointEvery = time.Second
	writeEvery      = 50 * time.Millisecond
	patience        = time.Second // of a write with a silent peer
)

// serve is the guest's writing and the engine's work, for ever.
func (st *stage) serve(v *volume) {
	st.step(v)
	st.after(writeEvery, func() { st.serve(v) })
}

func (st *stage) step(v *volume) {
	e, r := &v.engine, &st.engines[v.index]
	h := v.live()
	if h == nil || !st.executes(h, v) {
		st.interrupted(v)
		return
	}
	peer := st.other(h)
	linked := h.records[v.id].Level != ha.LevelNone && peer.full == 0 && st.w.linked(h, peer) && v.follows(peer, e.epoch)
	if linked && r.peerLife == peer.life {
		r.silent = st.w.now
	}
	switch {
	case e.attached && (!linked || r.peerLife != peer.life):
		// The stream broke. While nothing is written the replica has everything.
		if v.busy > 0 && (linked || st.w.now-r.silent >= int64(patience)) {
			e.attached = false
			v.outdate(h)
		}
	case e.attached, e.detached:
		if v.busy > 0 {
			v.write()
		}
		if e.attached && st.w.now >= r.due {
			r.due = st.w.now + int64(checkpointEvery)
			v.protect()
		}
	case !e.asked:
		v.outdate(h)
	}
	if e.attached || !linked {
		st.interrupted(v)
		return
	}
	switch {
	case r.syncing == 0:
		r.syncing = st.w.now + int64(st.resync)
		st.tell(h, v, "the replica on %s is being completed", peer.id)
	case st.w.now >= r.syncing && (e.detached || !e.asked):
		r.syncing, r.peerLife, r.silent = 0, peer.life, st.w.now
		v.resync()
	}
}

// interrupted ends a completion of the replica that cannot go on.
func (st *stage) interrupted(v *volume) {
	if r := &st.engines[v.index]; r.syncing != 0 {
		r.syncing = 0
		if h := v.engine.host; h != nil {
			st.tell(h, v, "the completion of the replica was interrupted")
		}
	}
}

// outdate asks for permission to write what the standby lacks.
func (v *volume) outdate(h *host) {
	v.engine.asked = true
	h.deliver(ha.ReplicaState{Guest: v.id, Epoch: v.engine.epoch})
}
