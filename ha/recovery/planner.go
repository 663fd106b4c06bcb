package recovery

import (
	"sort"
	"time"

	"vmctl/ha"
)

// Planner decides for the guests of one node. Not safe for concurrent use.
type Planner struct {
	self   string
	timing Timing
	now    ha.Time
	guests []*guest // sorted by id
	peer   Peer
	health Health

	home    ha.GuestID // on its way home; "": none
	homeNot ha.Time    // no way home before
	homeBad int        // failed ones in a row

	out []Action
}

// phase is where a guest of this node stands on its way to running.
type phase int

const (
	idle     phase = iota // not ours, or not wanted
	waiting               // for others
	starting              // a Start is out
	running
	backOff // between two attempts
	gaveUp
	left
)

type guest struct {
	Guest
	phase   phase
	since   ha.Time // of waiting, or of running
	until   ha.Time // of the back-off
	failed  int     // attempts in a row
	fell    string  // why it is not resumed any more; this epoch's
	out     bool    // a Start of this epoch is unanswered
	moved   bool    // the peer lived when it was taken over: it was handed over
	ordered bool    // no waiting: by the user, or another attempt
	user    bool    // the start is the user's, who hears how it ends
	counts  bool    // the way to running is a recovery, not the user's start

	wellSince ha.Time // 0: not fit to go home
	returns   []ha.Time
	noted     Note
	alarm     Word
	alarmText string
}

// New returns a planner for a node that knows of no guest yet.
func New(self string, t Timing) *Planner { return &Planner{self: self, timing: t} }

// Step handles one event that happened at now and returns what to do about it.
// A clock that goes back stands still here.
func (p *Planner) Step(now ha.Time, ev Event) []Action {
	p.now = max(p.now, now)
	p.out = nil
	p.handle(ev)
	p.settle()
	return p.out
}

func (p *Planner) handle(ev Event) {
	switch e := ev.(type) {
	case Guest:
		p.told(e)
	case Gone:
		p.gone(e.ID)
	case Peer:
		p.peer = e
	case Health:
		p.health = e
	case Failed:
		p.startFailed(e)
	case Ended:
		if g := p.find(e.ID); g != nil {
			g.out = false
			if g.phase == running || g.phase == starting { // in place
				g.phase, g.since, g.ordered = waiting, p.now, true
			}
		}
	case Ordered:
		if g := p.find(e.ID); g != nil {
			p.order(g)
		}
	case WentHome:
		p.wentHome(e)
	}
}

// told takes over the facts of a guest and what follows from them alone.
func (p *Planner) told(e Guest) {
	g := p.find(e.ID)
	if g == nil {
		g = &guest{}
		p.guests = append(p.guests, g)
	}
	before := g.Guest
	g.Guest = e
	sort.Slice(p.guests, func(i, j int) bool { return p.guests[i].ID < p.guests[j].ID })
	if before.Mine && (before.Epoch != e.Epoch || !e.Mine) {
		g.ordered, g.user, g.out = false, false, false
		p.rest(g)
	}
	if e.Taking && (!before.Taking || before.Epoch != e.Epoch) {
		g.moved = p.peer.Up
	}
	switch {
	case !e.Mine || !e.Run || e.Looking:
		p.rest(g)
	case e.Running && g.phase != running:
		p.calm(g)
		g.out = false
		g.phase, g.since = running, p.now
		g.ordered, g.user, g.wellSince = false, false, 0
	case e.Running || g.phase != idle:
	case g.out: // stopped and wanted again before it was up
		g.phase, g.since = starting, p.now
	case e.GaveUp != "" && !g.ordered && !e.Taking:
		g.phase = gaveUp
		p.raise(g, GaveUpWord, e.GaveUp)
	default:
		g.phase, g.since, g.counts = waiting, p.now, !g.ordered
	}
}

// rest forgets everything about starts: there is nothing to start.
func (p *Planner) rest(g *guest) {
	p.calm(g)
	if g.GaveUp != "" && g.Mine && !g.Looking {
		p.do(Remember{ID: g.ID})
		g.GaveUp = ""
	}
	g.phase, g.failed, g.fell, g.counts, g.noted, g.wellSince = idle, 0, "", false, Note{}, 0
}

func (p *Planner) gone(id ha.GuestID) {
	for i, g := range p.guests {
		if g.ID == id {
			p.calm(g)
			p.guests = append(p.guests[:i], p.guests[i+1:]...)
			break
		}
	}
}

// order is the user's word.
func (p *Planner) order(g *guest) {
	p.calm(g)
	if g.GaveUp != "" {
		p.do(Remember{ID: g.ID})
		g.GaveUp = ""
	}
	g.failed = 0
	g.user = g.phase != running && g.phase != starting
	switch g.phase {
	case waiting, backOff, gaveUp, left:
		g.phase, g.since, g.ordered, g.counts = waiting, p.now, true, false
	case idle:
		g.ordered = true
	}
}

// settle draws the conclusions of the event for every guest.
func (p *Planner) settle() {
	for _, g := range p.guests {
		switch {
		case g.phase == backOff && p.now >= g.until:
			g.phase, g.since, g.ordered = waiting, p.now, true
		case g.phase == left && g.Policy.Action != Leave:
			p.calm(g)
			g.phase, g.since = waiting, p.now
		case g.phase == running && p.now-g.since >= ha.Time(p.timing.Stable):
			g.failed, g.fell, g.counts = 0, "", false
		}
	}
	p.startThose()
	p.homeward()
}

// Next is when a Tick is needed at the latest, 0 if never.
func (p *Planner) Next() (next ha.Time) {
	sooner := func(at ha.Time) {
		if at > p.now && (next == 0 || at < next) {
			next = at
		}
	}
	for _, g := range p.guests {
		switch g.phase {
		case waiting:
			for _, d := range []time.Duration{p.timing.Gather, p.timing.Turn, p.timing.Wait} {
				sooner(g.since + ha.Time(d))
			}
		case backOff:
			sooner(g.until)
		case running:
			sooner(g.since + ha.Time(p.timing.Stable))
			if g.wellSince != 0 {
				sooner(g.wellSince + ha.Time(p.settleTime(g)))
			}
		}
	}
	sooner(p.homeNot)
	return next
}

func (p *Planner) find(id ha.GuestID) *guest {
	i := sort.Search(len(p.guests), func(i int) bool { return p.guests[i].ID >= id })
	if i < len(p.guests) && p.guests[i].ID == id {
		return p.guests[i]
	}
	return nil
}

func (p *Planner) named(name string) *guest {
	for _, g := range p.guests {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (p *Planner) do(a Action) { p.out = append(p.out, a) }

// note says something once.
func (p *Planner) note(g *guest, word Word, text string) {
	n := Note{ID: g.ID, Word: word, Text: text}
	if g.noted == n {
		return
	}
	g.noted = n
	p.do(n)
}

func (p *Planner) raise(g *guest, kind Word, text string) {
	if g.alarm == kind {
		return
	}
	p.calm(g)
	g.alarm, g.alarmText = kind, text
	p.do(Alarm{Kind: kind, ID: g.ID, On: true, Text: text})
}

func (p *Planner) calm(g *guest) {
	if g.alarm != "" {
		p.do(Alarm{Kind: g.alarm, ID: g.ID})
		g.alarm, g.alarmText = "", ""
	}
}
