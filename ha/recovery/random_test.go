package recovery

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vmctl/ha"
)

// TestInvariants feeds random but possible events and checks every action
// against what doc.go promises; in the end the troubles stop, and every guest
// that shall run does, or has an alarm.
func TestInvariants(t *testing.T) {
	seeds := uint64(1000)
	switch {
	case underRace: // a planner has no goroutine; make sim lives all of them
		seeds = 50
	case testing.Short():
		seeds = 300
	}
	for seed := range seeds {
		if wrong, _ := live(seed, false); wrong != "" {
			_, story := live(seed, true)
			t.Fatalf("seed %d: %s\n%s", seed, wrong, story.String())
		}
	}
}

// live lets one seed's things happen, until something is wrong.
func live(seed uint64, loud bool) (wrong string, story *strings.Builder) {
	w := newWorld(seed, loud)
	for range 200 {
		if w.act(); w.wrong != "" {
			return w.wrong, &w.story
		}
	}
	w.heal()
	return w.wrong, &w.story
}

// world is a node's view with a caller that answers every Start sooner or later.
type world struct {
	rand    *rand.Rand
	now     ha.Time
	planner *Planner
	peer    Peer
	guests  []*Guest
	out     map[ha.GuestID]*Start // unanswered
	resumed map[ha.GuestID]uint64 // epoch of the last try to resume
	ordered map[ha.GuestID]bool
	moved   map[ha.GuestID]bool // the peer lived when it came
	home    ha.GuestID
	loud    bool // the story is wanted
	story   strings.Builder
	wrong   string
}

var names = []string{"a", "b", "c", "d", "e"}

func newWorld(seed uint64, loud bool) *world {
	w := &world{
		loud: loud,
		rand: rand.New(rand.NewPCG(seed, 1)), now: ha.Time(time.Hour), planner: New("here", DefaultTiming()), peer: Peer{Name: "there", Up: true},
		out: map[ha.GuestID]*Start{}, resumed: map[ha.GuestID]uint64{}, ordered: map[ha.GuestID]bool{}, moved: map[ha.GuestID]bool{},
	}
	for _, name := range names {
		g := &Guest{ID: ha.GuestID(name), Name: name, Run: true, Epoch: 1, Covered: true, Home: []string{"here", "there", ""}[w.rand.IntN(3)]}
		g.Policy = policy(func(p *Policy) {
			p.Action = []How{Resume, Resume, Restart, Leave}[w.rand.IntN(4)]
			p.Priority = w.rand.IntN(3)
			if w.rand.IntN(2) == 0 {
				p.After = []string{names[w.rand.IntN(len(names))], "ghost"} // cycles too
			}
			if w.rand.IntN(2) == 0 {
				p.Failback = WhenSynced
			}
		})
		w.guests = append(w.guests, g)
		w.feed(*g)
	}
	w.feed(w.peer)
	return w
}

func (w *world) feed(ev Event) {
	w.tell("<-", ev)
	for _, action := range w.planner.Step(w.now, ev) {
		w.tell("   ->", action)
		if why := w.check(action); why != "" && w.wrong == "" {
			w.wrong = fmt.Sprintf("%T%+v: %s", action, action, why)
		}
	}
}

func (w *world) tell(arrow string, what any) {
	if w.loud {
		fmt.Fprintf(&w.story, "%8.1f %s %T%+v\n", float64(w.now)/1e9, arrow, what, what)
	}
}

func (w *world) find(id ha.GuestID) *Guest {
	for _, g := range w.guests {
		if g.ID == id {
			return g
		}
	}
	return nil
}

func (w *world) check(action Action) string {
	switch a := action.(type) {
	case Remember:
		w.find(a.ID).GaveUp = a.GaveUp
	case Start:
		return w.checkStart(a)
	case GoHome:
		g := w.find(a.ID)
		switch {
		case w.home != "":
			return "another one is on its way"
		case !g.Mine || !g.Running || !g.Synced || g.Home != a.To || a.To != w.peer.Name || !w.peer.Up || w.peer.Maintenance || g.Policy.Failback != WhenSynced:
			return "it is not fit to go"
		}
		w.home = a.ID
	}
	return ""
}

func (w *world) checkStart(a Start) string {
	g := w.find(a.ID)
	if old := w.out[a.ID]; old != nil && old.Epoch == a.Epoch {
		return "a second start"
	}
	w.out[a.ID] = &a
	switch {
	case !g.Mine || !g.Run || g.Running || g.Looking || a.Epoch != g.Epoch:
		return "it is not to be started"
	case g.Taking && !w.moved[a.ID] && g.Policy.Action == Leave && !w.ordered[a.ID] && w.resumed[a.ID] != g.Epoch:
		return "it is to be left"
	case g.GaveUp != "" && !w.ordered[a.ID]:
		return "it was given up"
	case a.How == Resume && (!g.Taking || !g.Resumable || w.resumed[a.ID] == g.Epoch || g.Policy.Action == Restart && !w.moved[a.ID]):
		return "there is nothing to resume"
	}
	if a.How == Resume {
		w.resumed[a.ID] = g.Epoch
	}
	return ""
}

// act lets one thing happen.
func (w *world) act() {
	w.now += ha.Time(w.rand.Int64N(int64(20 * time.Second)))
	g := w.guests[w.rand.IntN(len(w.guests))]
	switch w.rand.IntN(10) {
	case 0, 1, 2:
		w.answer(g, w.rand.IntN(3) > 0)
	case 3:
		w.peer.Up = !w.peer.Up
		w.peer.Maintenance = w.rand.IntN(4) == 0
		w.feed(w.peer)
	case 4, 5:
		w.move(g, !g.Mine)
	case 6:
		if g.Mine && !g.Run {
			w.ordered[g.ID] = true
			w.feed(Ordered{ID: g.ID})
		}
		g.Run = !g.Run
		w.feed(*g)
	case 7:
		if g.Mine {
			w.ordered[g.ID] = true
			w.feed(Ordered{ID: g.ID})
		}
	case 8:
		if g.Running {
			g.Synced = !g.Synced
			w.feed(*g)
		}
	case 9:
		w.end(g)
	}
	w.feed(Tick{})
}

// answer tells what became of a start.
func (w *world) answer(g *Guest, well bool) {
	s := w.out[g.ID]
	if s == nil || s.Epoch != g.Epoch || !g.Mine {
		return
	}
	delete(w.out, g.ID)
	g.Taking = false
	switch {
	case !g.Run:
		w.feed(Ended{ID: g.ID})
	case well:
		g.Running = true
		w.ordered[g.ID] = false
	default:
		w.feed(Failed{ID: g.ID, How: s.How, Reason: "no luck"})
	}
	w.feed(*g)
}

// move changes the owner, as a takeover or a yield does.
func (w *world) move(g *Guest, mine bool) {
	g.Epoch++
	g.Mine, g.Taking, g.Resumable, g.Running, g.Synced, g.GaveUp = mine, mine, mine && w.rand.IntN(3) > 0, false, false, ""
	delete(w.out, g.ID)
	w.ordered[g.ID], w.moved[g.ID] = false, w.peer.Up
	w.feed(*g)
	if w.home == g.ID {
		w.home = ""
		w.feed(WentHome{ID: g.ID, Err: []string{"", "it did not work"}[w.rand.IntN(2)]})
	}
}

// end is a crash of a running guest.
func (w *world) end(g *Guest) {
	if !g.Running {
		return
	}
	g.Running, g.Synced = false, false
	w.feed(*g)
	if w.rand.IntN(2) == 0 {
		w.feed(Failed{ID: g.ID, How: Restart, Reason: "it panicked"})
	} else {
		w.feed(Ended{ID: g.ID})
	}
}

// heal ends all trouble: every guest comes here and every start succeeds.
func (w *world) heal() {
	for _, g := range w.guests {
		if !g.Mine {
			w.move(g, true)
		}
	}
	for range 40 {
		w.now += ha.Time(time.Minute)
		w.feed(Tick{})
		for _, g := range w.guests {
			w.answer(g, true)
		}
	}
	for _, g := range w.guests {
		if state := w.planner.State(g.ID); g.Run && !g.Running && state.Phase != PhaseLeft && state.Phase != PhaseFailed && w.wrong == "" {
			w.wrong = fmt.Sprintf("%s never runs: %+v", g.ID, state)
		}
	}
}
