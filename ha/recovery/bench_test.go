package recovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/ha"
)

const second = time.Second

// bench is one node's planner with an obedient caller: a Start succeeds after
// takes, unless the guest is told to fail. Its log has events and actions.
type bench struct {
	t       *testing.T
	now     ha.Time
	planner *Planner
	facts   map[ha.GuestID]*Guest
	peer    Peer
	fails   map[ha.GuestID]string // reason of every failing start; "resume:..." fails resumes only
	homeErr string
	takes   time.Duration
	pending []pending
	starts  []Start
	log     strings.Builder
}

type pending struct {
	at ha.Time
	ev func()
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, now: ha.Time(100 * second), planner: New("b", DefaultTiming()), facts: map[ha.GuestID]*Guest{},
		fails: map[ha.GuestID]string{}, takes: second, peer: Peer{Name: "a", Up: true}}
}

func policy(change func(*Policy)) Policy {
	p := Policy{Action: Resume, Attempts: 3, Backoff: 5 * second, Failback: Never, Settle: 60 * second}
	if change != nil {
		change(&p)
	}
	return p
}

func after(names ...string) func(*Policy) { return func(p *Policy) { p.After = names } }
func priority(n int) func(*Policy)        { return func(p *Policy) { p.Priority = n } }

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(&b.log, "%7.2f "+format+"\n", append([]any{float64(b.now)/1e9 - 100}, args...)...)
}

// peers makes a guest that the peer owns and runs.
func (b *bench) peers(name string, change func(*Policy)) {
	id := ha.GuestID(name)
	b.facts[id] = &Guest{ID: id, Name: name, Policy: policy(change), Home: "a", Run: true, Epoch: 1, Covered: true}
	b.peer.Running = append(b.peer.Running, id)
	b.tell(id)
	b.feed(b.peer)
}

func (b *bench) tell(id ha.GuestID) { b.feed(*b.facts[id]) }

func (b *bench) change(name string, change func(*Guest)) {
	change(b.facts[ha.GuestID(name)])
	b.tell(ha.GuestID(name))
}

func (b *bench) peerIs(change func(*Peer)) {
	change(&b.peer)
	b.say("peer up=%v maintenance=%v alarm=%q running=%v", b.peer.Up, b.peer.Maintenance, b.peer.Alarm, b.peer.Running)
	b.feed(b.peer)
}

func (b *bench) peerDies() { b.peerIs(func(p *Peer) { p.Up, p.Running = false, nil }) }

// take makes guests this node's, in this order, as the lease core does.
func (b *bench) take(names ...string) {
	for _, name := range names {
		b.say("-- %s is taken over", name)
		b.change(name, func(g *Guest) { g.Mine, g.Epoch, g.Taking, g.Resumable = true, g.Epoch+1, true, true })
	}
}

// feed gives an event and executes what follows.
func (b *bench) feed(ev Event) {
	for _, action := range b.planner.Step(b.now, ev) {
		b.execute(action)
	}
}

func (b *bench) execute(action Action) {
	switch a := action.(type) {
	case Start:
		b.say("%s: start by %s, counts %v: %s", a.ID, a.How, a.Counts, a.Reason)
		b.starts = append(b.starts, a)
		b.later(b.takes, func() { b.started(a) })
	case Remember:
		b.say("%s: remember %q", a.ID, a.GaveUp)
		b.facts[a.ID].GaveUp = a.GaveUp
	case Alarm:
		b.say("%s: alarm %s on=%v %s", a.ID, a.Kind, a.On, a.Text)
	case Note:
		b.say("%s: %s: %s", a.ID, a.Word, a.Text)
	case GoHome:
		b.say("%s: go home to %s", a.ID, a.To)
		b.later(second, func() { b.went(a) })
	}
}

func (b *bench) later(d time.Duration, f func()) {
	b.pending = append(b.pending, pending{b.now + ha.Time(d), f})
}

// started is what became of a start.
func (b *bench) started(s Start) {
	g := b.facts[s.ID]
	if g.Epoch != s.Epoch || !g.Mine {
		return
	}
	reason, onlyResume := b.fails[s.ID], strings.HasPrefix(b.fails[s.ID], "resume:")
	if reason != "" && (!onlyResume || s.How == Resume) {
		if onlyResume { // the disks are taken all the same
			g.Taking = false
		}
		b.feed(Failed{ID: s.ID, How: s.How, Reason: reason})
		b.tell(s.ID)
		return
	}
	b.say("-- %s runs", s.ID)
	b.change(string(s.ID), func(g *Guest) { g.Running, g.Taking = true, false })
}

func (b *bench) went(a GoHome) {
	if b.homeErr == "" {
		b.change(string(a.ID), func(g *Guest) { g.Mine, g.Running, g.Synced, g.Epoch = false, false, false, g.Epoch+1 })
		b.peer.Running = append(b.peer.Running, a.ID)
		b.feed(b.peer)
	}
	b.feed(WentHome{ID: a.ID, Err: b.homeErr})
}

func (b *bench) run(d time.Duration) {
	for end := b.now + ha.Time(d); b.now < end; {
		b.now += ha.Time(100 * time.Millisecond)
		for i := 0; i < len(b.pending); {
			if b.pending[i].at > b.now {
				i++
				continue
			}
			f := b.pending[i].ev
			b.pending = slices.Delete(b.pending, i, i+1)
			f()
		}
		b.feed(Tick{})
	}
}
