package witness

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"vmctl/ha"
	"vmctl/vm/guard"
)

// garbage is how much the heap may grow over what is in use, in percent, before
// it is collected: a witness has little to do and should be small.
const garbage = 10

// calmAfter is how many sweeps without a new or ended connection make it worth
// giving back what handshakes needed.
const calmAfter = 5

// Lean makes the process small, for one that is nothing but a witness: a heap
// of one processor, for there is one loop, and no pages that nobody asked for.
func Lean() {
	debug.SetGCPercent(garbage)
	runtime.GOMAXPROCS(1)
	_ = mapSingly() // or it is larger, which is no reason not to vote
}

// tidy gives back memory that the start or a wave of handshakes needed.
func tidy() {
	debug.FreeOSMemory()
	_ = dropFilePages()
}

// sweep ends links that are silent, once a second, and tidies up when calm
// returns.
func (p *loop) sweep(now time.Time) {
	if now.Sub(p.swept) < time.Second {
		return
	}
	p.swept = now
	for _, l := range p.links {
		l.frames = 0
		if time.Duration(ha.Time(guard.Now())-l.heard) > silence {
			p.drop(l, fmt.Errorf("nothing came for %s", silence))
		}
	}
	switch {
	case p.changed:
		p.changed, p.calm = false, 0
	case p.calm < calmAfter:
		if p.calm++; p.calm == calmAfter && p.tidy != nil {
			p.tidy()
		}
	}
}
