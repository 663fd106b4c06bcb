package witness

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"vmctl/ha"
	"vmctl/vm/guard"
)

// garbage is how much the heap may grow over what is in use, in percent, before
// it is collected: a witness has little to do and should be small.
const garbage = 10

// growth is how much a calm process may grow over what it takes after it was
// tidied up, in percent of what is in use. The less it is, the more the collector
// does: with 25, a thousand pairs take half a MB more and a tenth of a core less.
const growth = 15

// calmAfter is how many sweeps without a new or ended connection make it worth
// giving memory back.
const calmAfter = 5

// Lean makes the process small, for one that is nothing but a witness: a heap
// of one processor, for there is one loop, and no pages that nobody asked for.
func Lean() {
	debug.SetGCPercent(garbage)
	runtime.GOMAXPROCS(1)
	_ = mapSingly() // or it is larger, which is no reason not to vote
}

// tidy gives memory back: at first what the start or a wave of new connections
// needed, and then, again and again, what has become of no use. Pages of files that
// were used once go only at first.
func tidy(first bool) {
	debug.FreeOSMemory()
	if first {
		_ = dropFilePages()
	}
	tighten()
}

// tighten has the collector keep the process at what it takes now and a part of
// what is in use. Without a limit it lets 1 MiB of garbage come before it
// begins, of whatever size the heap is.
func tighten() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	use := m.HeapAlloc + m.HeapAlloc*growth/100
	debug.SetMemoryLimit(int64(m.Sys - m.HeapIdle - m.HeapAlloc + use + limitHeadroom))
}

// limitHeadroom is what the collector keeps below a memory limit.
const limitHeadroom = 1 << 20

// loosen lets the heap grow, before a limit of calmer times has the collector do
// nothing else.
func loosen() { debug.SetMemoryLimit(math.MaxInt64) }

// sweep ends links that are silent, once a second, and tidies up while it is
// calm.
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
	if p.tidy == nil {
		return
	}
	if p.changed || p.held > quick {
		p.changed, p.calm = false, 0
		loosen()
	} else if p.calm++; p.calm%calmAfter == 0 {
		p.tidy(p.calm == calmAfter)
	}
}
