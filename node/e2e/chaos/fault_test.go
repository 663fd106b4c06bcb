package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// fault is one thing that goes wrong, with what ends it.
type fault struct {
	kind  string
	host  string        // o, the owner of the moment, s, the other, or w; then a, b or w
	gap   time.Duration // from the one before
	lasts time.Duration // until it is ended
}

func (f fault) String() string {
	return fmt.Sprintf("%s on %s, ended after %v", f.kind, f.host, f.lasts.Round(time.Millisecond))
}

// kinds are all faults. Hosts are drawn from where.
var kinds = []struct {
	name   string
	weight int
	where  string
	bound  time.Duration // longest; the shortest is a tenth of it
}{
	{"kill-agent", 3, "oos", 6 * time.Second},
	{"stop-agent", 3, "oos", 6 * time.Second},
	{"restart-agent", 2, "oos", time.Second},
	{"kill-guard", 1, "oooos", 0},
	// Nothing but the guard enforces a lease: stopped for longer than the margin
	// of the takeover it must not coincide with a cut. See exclusive.
	{"stop-guard", 1, "oooos", 3 * time.Second},
	{"kill-qemu", 1, "oooos", 0},
	{"stop-qemu", 2, "oooos", 5 * time.Second},
	{"kill-witness", 1, "w", 6 * time.Second},
	{"stop-witness", 1, "w", 6 * time.Second},
	{"power-cut", 4, "oos", 8 * time.Second},
	{"power-cut", 1, "w", 6 * time.Second},
	{"cable-cut", 3, "oosw", 6 * time.Second},
	{"drop-from-peer", 2, "oos", 6 * time.Second},
	{"drop-from-witness", 1, "oos", 6 * time.Second},
	{"slow-link", 2, "oos", 6 * time.Second},
	{"full-disk", 2, "oos", 5 * time.Second},
	{"full-disk", 1, "w", 5 * time.Second},
	{"full-ram", 2, "oos", 5 * time.Second},
	{"pause", 1, "os", 4 * time.Second},
	{"stop", 1, "os", 2 * time.Second},
	{"maintenance", 2, "oos", 6 * time.Second},
}

// exclusive faults come alone: the product says that it does not cover them
// together with others.
func exclusive(kind string) bool { return kind == "stop-guard" }

// longestGap is the longest time between the beginnings of two faults.
const longestGap = 4 * time.Second

// schedule draws faults.
type schedule struct{ *rand.Rand }

func newSchedule(seed uint64) schedule { return schedule{rand.New(rand.NewPCG(seed, 1))} }

func (s schedule) next() fault {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	draw := s.IntN(total)
	for _, k := range kinds {
		if draw -= k.weight; draw >= 0 {
			continue
		}
		at := s.IntN(len(k.where))
		f := fault{kind: k.name, host: k.where[at : at+1], gap: time.Duration(s.Int64N(int64(longestGap)))}
		if k.bound > 0 {
			f.lasts = k.bound/10 + time.Duration(s.Int64N(int64(k.bound)*9/10))
		}
		return f
	}
	return fault{}
}

// batch draws up to n faults that are healed together.
func (s schedule) batch(n int) (faults []fault) {
	for range min(n, 2+s.IntN(4)) {
		f := s.next()
		if exclusive(f.kind) && len(faults) > 0 {
			break
		}
		faults = append(faults, f)
		if exclusive(f.kind) {
			break
		}
	}
	return faults
}
