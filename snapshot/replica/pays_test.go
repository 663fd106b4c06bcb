package replica

import (
	"testing"
	"time"
)

// wireModel passes bytes at a rate, through an encoder with a rate and a ratio.
type wireModel struct {
	link, encoder, ratio float64
	buffer               float64 // bytes that vanish at once at a checkpoint's beginning
}

const modelChunk = 256 << 10

// send passes a checkpoint and gives the chunks that were compressed.
func (m wireModel) send(p *pays, at time.Time, bytes int) (end time.Time, compressed int) {
	p.begin(at)
	buffered := m.buffer
	for ; bytes > 0; bytes -= modelChunk {
		stored, took := float64(modelChunk), 0.0
		if p.compress() {
			compressed++
			stored, took = stored*m.ratio, stored/m.encoder
		}
		if free := min(stored, buffered); free > 0 {
			buffered, stored = buffered-free, stored-free
		}
		at = at.Add(time.Duration((took + stored/m.link) * float64(time.Second)))
		p.sent(modelChunk, at)
	}
	at = at.Add(time.Duration((m.buffer - buffered) / m.link * float64(time.Second)))
	p.end(at)
	return at, compressed
}

func TestCompressionFollowsWhatPays(t *testing.T) {
	const encoder, ratio = 400e6, 0.4
	for _, test := range []struct {
		name string
		wire wireModel
		want bool
	}{
		{"1 Gbit/s", wireModel{117e6, encoder, ratio, 0}, true},
		{"1 Gbit/s, big buffers", wireModel{117e6, encoder, ratio, 4 << 20}, true},
		{"100 Mbit/s", wireModel{11.7e6, encoder, ratio, 1 << 20}, true},
		{"10 Gbit/s", wireModel{1.17e9, encoder, ratio, 0}, false},
		{"5 Gbit/s", wireModel{600e6, encoder, ratio, 4 << 20}, false},
		{"1 Gbit/s, nothing to gain", wireModel{117e6, encoder, 0.95, 0}, false},
		{"1 Gbit/s, a slow host", wireModel{117e6, 60e6, ratio, 0}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p pays
			at := time.Unix(0, 0)
			chunks := 0
			for range 100 {
				var n int
				at, n = test.wire.send(&p, at, 20<<20)
				chunks += n
			}
			if p.on != test.want {
				t.Errorf("on: %v, seconds a byte without %g, with %g", p.on, p.cost[0], p.cost[1])
			}
			if share := float64(chunks) / 8000; test.want == (share < 0.8) || !test.want && share > 0.1 {
				t.Errorf("%.0f %% of the chunks were compressed", 100*share)
			}
		})
	}
}

func TestCompressionOfSmallCheckpoints(t *testing.T) {
	var p pays
	at := time.Unix(0, 0)
	slow := wireModel{1.2e6, 400e6, 0.4, 8 << 20} // everything vanishes in the buffer
	for range 30 {
		at, _ = slow.send(&p, at, 2<<20)
	}
	if !p.on {
		t.Errorf("off on a slow link: without %g, with %g", p.cost[0], p.cost[1])
	}
}

func TestCompressionFollowsAChange(t *testing.T) {
	var p pays
	at := time.Unix(0, 0)
	for _, step := range []struct {
		link float64
		want bool
	}{{117e6, true}, {3e9, false}, {50e6, true}} {
		for range 400 {
			at, _ = wireModel{step.link, 400e6, 0.4, 0}.send(&p, at, 20<<20)
		}
		if p.on != step.want {
			t.Errorf("link of %.0f bytes a second: on %v", step.link, p.on)
		}
	}
}
