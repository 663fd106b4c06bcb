package recovery

import (
	"fmt"
	"time"

	"vmctl/ha"
)

// homeward sends one guest home when all is well.
func (p *Planner) homeward() {
	for _, g := range byRank(p.guests, p.ranks()) {
		if !p.isAway(g) {
			g.wellSince = 0
			continue
		}
		why := p.notFit(g)
		if why != "" {
			g.wellSince = 0
			p.note(g, HomeWaits, g.Name+" does not go home yet: "+why)
			continue
		}
		if g.wellSince == 0 {
			g.wellSince = max(p.now, 1)
		}
		settle := p.settleTime(g)
		switch {
		case g.ID == p.home:
		case p.now-g.wellSince < ha.Time(settle):
			p.note(g, HomeWaits, fmt.Sprintf("%s goes home to %s when all has been well for %v", g.Name, g.Home, settle))
		case p.home != "":
			p.note(g, HomeWaits, g.Name+" does not go home yet: another guest is on its way")
		case p.now < p.homeNot:
			p.note(g, HomeWaits, g.Name+" does not go home yet: the last way home failed, the next try comes later")
		default:
			p.home = g.ID
			p.note(g, HomeGoes, fmt.Sprintf("%s is handed over to its home %s", g.Name, g.Home))
			p.do(GoHome{ID: g.ID, To: g.Home})
		}
	}
}

// isAway says whether the guest runs here and its policy wants it elsewhere. At
// home nobody is away: that is why it cannot go to and fro.
func (p *Planner) isAway(g *guest) bool {
	return g.phase == running && g.Running && g.Policy.Failback == WhenSynced && g.Home != "" && g.Home != p.self && g.Home == p.peer.Name
}

// notFit says what keeps a guest from going home, "" if nothing.
func (p *Planner) notFit(g *guest) string {
	switch {
	case !p.peer.Up:
		return fmt.Sprintf("its home %s is not back", g.Home)
	case p.peer.Maintenance:
		return fmt.Sprintf("its home %s is in maintenance", g.Home)
	case !g.Synced:
		return fmt.Sprintf("its replica at its home %s is not complete", g.Home)
	case p.peer.Alarm != "":
		return fmt.Sprintf("its home %s has an alarm: %s", g.Home, p.peer.Alarm)
	case g.Alarm != "":
		return "there is an alarm: " + g.Alarm
	case p.health.Alarm != "":
		return "this node has an alarm: " + p.health.Alarm
	}
	return ""
}

// settleTime doubles with every way home that the guest took within the last
// HomeMost: a home that fails again and again gets its guest less and less often.
func (p *Planner) settleTime(g *guest) time.Duration {
	settle := g.Policy.Settle
	for _, at := range g.returns {
		if p.now-at < ha.Time(p.timing.HomeMost) {
			settle = min(max(2*settle, time.Second), max(p.timing.HomeMost, g.Policy.Settle))
		}
	}
	return settle
}

func (p *Planner) wentHome(e WentHome) {
	if p.home != e.ID {
		return
	}
	p.home = ""
	g := p.find(e.ID)
	if g == nil {
		return
	}
	g.wellSince = 0
	if e.Err == "" {
		p.homeBad = 0
		g.returns = append(g.returns, p.now)
		if len(g.returns) > maxReturns {
			g.returns = g.returns[1:]
		}
		p.note(g, HomeDone, fmt.Sprintf("%s is back at its home %s", g.Name, g.Home))
		return
	}
	wait := p.timing.HomeRetry
	for range p.homeBad {
		wait = min(2*wait, p.timing.HomeMost)
	}
	p.homeBad++
	p.homeNot = p.now + ha.Time(wait)
	p.note(g, HomeFailed, fmt.Sprintf("%s could not be handed over to its home %s, the next try in %v at the earliest: %s", g.Name, g.Home, wait, e.Err))
}

// maxReturns is how many ways home are remembered.
const maxReturns = 16
