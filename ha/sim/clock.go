package sim

import (
	"time"

	"vmctl/ha"
)

// local is what the host's clock shows. It goes on while the host is suspended.
func (h *host) local() ha.Time { return h.localAt(h.w.now) }

func (h *host) localAt(t int64) ha.Time {
	return ha.Time(h.offset + t + t/1_000_000*h.ppm)
}

// reading is what the agent believes the time to be. Events are handled by
// other threads than those that took their time: a reading may be older than
// the one before it, by less than a tick, which is what the window's q is for.
func (h *host) reading() ha.Time {
	now := h.local()
	if h.stale > 0 {
		now -= ha.Time(h.w.between(0, h.w.timing.Tick*9/10))
	}
	return now
}

// setRate changes how fast the clock goes, without a jump.
func (h *host) setRate(ppm int64) {
	before := h.local()
	h.ppm = ppm
	h.offset += int64(before - h.local())
}

// drawRate is a rate within the protocol's bound; the extremes are the
// interesting ones.
func (w *world) drawRate() int64 {
	most := w.timing.DriftPPM
	if w.chance(0.5) {
		return most * (2*w.rng.Int64N(2) - 1)
	}
	return w.rng.Int64N(2*most+1) - most
}

// drawTiming varies the protocol's durations, above all the drift, so that
// every term of the window is seen to matter. Half of the runs have
// production's values.
func (w *world) drawTiming() ha.Timing {
	t := ha.DefaultTiming()
	switch w.rng.IntN(8) {
	case 0, 1:
		t.DriftPPM = 50_000
	case 2:
		t.DriftPPM = 100_000
		t.Lease, t.Stop = 3*time.Second, 500*time.Millisecond
	case 3:
		t.Lease, t.Stop = time.Second, 200*time.Millisecond
	}
	return t
}
