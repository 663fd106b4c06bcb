package sim

import (
	"time"

	"vmctl/ha"
)

// network connects every pair of hosts by two one-way links.
type network struct {
	links [nodes + witnesses][nodes + witnesses]link
}

type link struct {
	cut   int     // number of faults that cut it
	loss  float64 // probability
	twice float64 // probability of a second delivery
	slow  float64 // probability of a delay up to lag
	lag   time.Duration
}

func (w *world) send(from, to *host, m ha.Message) {
	l := &w.net.links[from.index][to.index]
	if l.cut > 0 || w.chance(l.loss) {
		return
	}
	copies := 1
	if w.chance(l.twice) {
		copies = 2
	}
	for range copies {
		delay := w.between(100*time.Microsecond, 2*time.Millisecond)
		if w.chance(l.slow) {
			delay = w.between(0, l.lag)
		}
		w.after(delay, func() {
			if to.suspended > 0 && w.chance(0.5) {
				return
			}
			to.deliver(ha.Received{Message: m})
		})
	}
}

// linked says whether data flows both ways between two agents that run.
func (w *world) linked(a, b *host) bool {
	return a.running() && b.running() &&
		w.net.links[a.index][b.index].cut <= 0 && w.net.links[b.index][a.index].cut <= 0
}
