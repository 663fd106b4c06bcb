package recovery

import (
	"fmt"
	"strings"
	"time"

	"vmctl/ha"
)

// startThose lets every guest start whose turn it is. A start that is allowed
// changes what the others wait for, so the highest priority goes first.
func (p *Planner) startThose() {
	ranks := p.ranks()
	for _, g := range byRank(p.guests, ranks) {
		if g.phase != waiting {
			continue
		}
		if g.Taking && !g.moved && g.Policy.Action == Leave && !g.ordered {
			g.phase = left
			p.raise(g, LeftWord, fmt.Sprintf("%s is this node's now and is left stopped, as its recovery policy says: `vmctl vm start %s` starts it here", g.Name, g.Name))
			continue
		}
		if !g.ordered {
			if why := p.waitsFor(g, ranks); why != "" {
				p.note(g, Waits, why)
				continue
			}
		}
		p.start(g)
	}
}

func (p *Planner) start(g *guest) {
	s := Start{ID: g.ID, Epoch: g.Epoch, How: p.how(g), Counts: g.counts, Reason: p.reason(g)}
	g.phase, g.out = starting, true
	if g.counts {
		p.note(g, Starts, fmt.Sprintf("%s is started (%s): %s", g.Name, s.How, s.Reason))
	}
	p.do(s)
}

// how says how the guest is started now. The policy's action is for failures:
// what was handed over goes on, and so does what the user starts although its
// policy would have left it.
func (p *Planner) how(g *guest) How {
	if g.Taking && g.Resumable && g.fell == "" && (g.moved || g.Policy.Action != Restart) {
		return Resume
	}
	return Restart
}

func (p *Planner) reason(g *guest) string {
	switch {
	case g.user:
		return "the user starts it"
	case g.failed > 0:
		return fmt.Sprintf("attempt %d of %d", g.failed+1, g.Policy.Attempts)
	case g.fell != "":
		return "it could not be resumed: " + g.fell
	case !g.counts:
		return "it ended and is to run"
	case !g.Taking:
		return "it is this node's and is to run"
	case g.moved:
		return "it was handed over"
	case g.Policy.Action == Restart:
		return "its recovery policy boots it"
	case !g.Resumable:
		return "it has no checkpoint to resume"
	}
	return "it was taken over"
}

// startFailed counts a failed attempt. A failed resume is followed by a boot at
// once, which is the first attempt.
func (p *Planner) startFailed(e Failed) {
	g := p.find(e.ID)
	if g == nil {
		return
	}
	g.out = false
	if g.phase != starting && g.phase != running {
		return
	}
	if e.How == Resume && g.fell == "" {
		g.fell = e.Reason
		g.phase, g.since, g.ordered = waiting, p.now, true
		p.note(g, FellBack, fmt.Sprintf("%s could not be resumed and is booted from its disks: %s", g.Name, e.Reason))
		return
	}
	g.failed++
	if g.failed >= g.Policy.Attempts {
		text := fmt.Sprintf("%s failed to start %d times and is left stopped: %s. Look at `vmctl vm logs %s`; `vmctl vm start %s` tries again", g.Name, g.failed, e.Reason, g.Name, g.Name)
		g.phase, g.ordered = gaveUp, false
		g.GaveUp = text
		p.do(Remember{ID: g.ID, GaveUp: text})
		p.raise(g, GaveUpWord, text)
		return
	}
	wait := p.backOffFor(g)
	g.phase, g.until = backOff, p.now+ha.Time(wait)
	if g.user { // who hears of it; the next attempts are nobody's
		g.user = false
		return
	}
	p.note(g, BacksOff, fmt.Sprintf("%s failed to start (%d of %d), the next try in %v: %s", g.Name, g.failed, g.Policy.Attempts, wait, e.Reason))
}

// backOffFor doubles with every failed attempt.
func (p *Planner) backOffFor(g *guest) time.Duration {
	wait := g.Policy.Backoff
	for i := 1; i < g.failed && wait < MaxBackoff; i++ {
		wait *= 2
	}
	return min(wait, MaxBackoff)
}

// waitsFor says what the guest waits for, "" if it may start.
func (p *Planner) waitsFor(g *guest, ranks map[ha.GuestID]int) string {
	waited := time.Duration(p.now - g.since)
	var missing []string
	for _, name := range g.Policy.After {
		if d := p.named(name); d != nil && !p.isUp(d) && !p.isHopeless(d) && !p.reaches(d, g) {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0 && waited < p.timing.Wait:
		return fmt.Sprintf("%s waits for %s to run, at most %v", g.Name, strings.Join(missing, ", "), p.timing.Wait)
	case len(missing) > 0:
		p.note(g, OutOfOrder, fmt.Sprintf("%s is started although %s did not run within %v", g.Name, strings.Join(missing, ", "), p.timing.Wait))
		return ""
	}
	for _, o := range p.guests {
		switch {
		case o == g || ranks[o.ID] <= ranks[g.ID]:
		case (o.phase == starting || o.Looking) && waited < p.timing.Turn:
			return fmt.Sprintf("%s waits for %s, of a higher priority, to start, at most %v", g.Name, o.Name, p.timing.Turn)
		case p.isComing(o) && waited < p.timing.Gather:
			return fmt.Sprintf("%s waits for %s, of a higher priority, to be taken over, at most %v", g.Name, o.Name, p.timing.Gather)
		}
	}
	return ""
}

// isUp says whether a guest runs, here or on the peer.
func (p *Planner) isUp(g *guest) bool {
	if g.Mine {
		return g.Running
	}
	if !p.peer.Up {
		return false
	}
	for _, id := range p.peer.Running {
		if id == g.ID {
			return true
		}
	}
	return false
}

// isHopeless says whether waiting for a guest makes no sense: it failed for
// good, was left, or nobody wants it to run.
func (p *Planner) isHopeless(g *guest) bool {
	return !g.Run || g.phase == gaveUp || g.phase == left
}

// isComing says whether this node is about to take the guest over.
func (p *Planner) isComing(g *guest) bool {
	return !g.Mine && g.Run && g.Covered && !p.peer.Up && g.Policy.Action != Leave
}
