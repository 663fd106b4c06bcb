package replica

import "time"

// Compression says whether the pages of checkpoints are compressed.
type Compression int

// Values of Compression.
const (
	CompressIfItPays Compression = iota // as measured on the stream
	CompressAlways
	CompressNever
)

const (
	// paysWindow is how many bytes of pages one measurement goes over; a
	// checkpoint with less counts as one if it has paysLeast.
	paysWindow = 4 << 20
	paysLeast  = 1 << 20
	// paysMost is what no encoder reaches, in bytes a second: nothing is tried
	// on a link that passes that much without one.
	paysMost = 1 << 30
	// paysTrial is for how many measurements the other way is tried, and
	// between paysSoonest and paysLatest of them pass between two trials.
	paysTrial   = 4
	paysSoonest = 4
	paysLatest  = 256
)

// pays decides whether compressing pays: it measures how many bytes of pages
// get through in a second with and without, which has the link, the encoder,
// the pages and the load of the host in it, and tries the other way now and
// then. Compressing costs the guests processor time: it must gain a quarter to
// begin, and a tenth to go on.
type pays struct {
	on      bool
	cost    [2]float64 // seconds a byte without and with; 0: not known
	trying  int        // measurements left of the trial, 0: none
	since   int        // measurements since the last trial
	wait    int        // measurements between trials
	bytes   int64      // of the measurement under way
	began   time.Time
	windows int // measured in this checkpoint
}

// begin is the time of a checkpoint's first frame.
func (p *pays) begin(now time.Time) { p.bytes, p.began, p.windows = 0, now, 0 }

// compress tells whether the next chunk is to be compressed.
func (p *pays) compress() bool { return p.on != (p.trying > 0) }

// idle takes out time in which the stream had to wait for others.
func (p *pays) idle(d time.Duration) { p.began = p.began.Add(d) }

// sent counts a chunk with that many bytes of pages.
func (p *pays) sent(bytes int, now time.Time) {
	if p.bytes += int64(bytes); p.bytes >= paysWindow {
		p.measured(now)
	}
}

// end is the time of the acknowledgement. Small checkpoints vanish in the
// buffers of a connection: only this tells how fast they went.
func (p *pays) end(now time.Time) {
	if p.windows == 0 && p.bytes >= paysLeast {
		p.measured(now)
	}
}

func (p *pays) measured(now time.Time) {
	took := max(now.Sub(p.began), time.Microsecond)
	way := 0
	if p.compress() {
		way = 1
	}
	// Times are averaged, not speeds: what vanishes in a buffer is fast beyond
	// measure.
	cost := took.Seconds() / float64(p.bytes)
	if known := p.cost[way]; known > 0 {
		cost = known*0.7 + cost*0.3
	}
	p.cost[way] = cost
	p.bytes, p.began = 0, now
	p.windows++
	p.decide()
}

// decide ends a trial, or begins one.
func (p *pays) decide() {
	if p.trying > 0 {
		if p.trying--; p.trying > 0 {
			return
		}
		gain := 1.25
		if p.on {
			gain = 1.1
		}
		if on := p.cost[1]*gain < p.cost[0]; on != p.on {
			p.on, p.wait = on, paysSoonest
		} else {
			p.wait = min(2*p.wait, paysLatest)
		}
		p.since = 0
		return
	}
	p.wait = max(p.wait, paysSoonest)
	if p.since++; p.since >= p.wait && (p.on || p.cost[0] > 1.0/paysMost) {
		p.trying = paysTrial
		p.cost[other(p.on)] = 0 // what was true then may not be now
	}
}

// other is the index of the way that is not in use.
func other(on bool) int {
	if on {
		return 0
	}
	return 1
}
