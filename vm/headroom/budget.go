package headroom

import (
	"sync"
	"time"
)

// A host that runs out of memory loses a process of the kernel's choice, and guests
// are the largest. So the copies of their memory that checkpoints need, here and of
// the peer's guests, go before that happens: a guest without a checkpoint is alarmed
// of, and is protected again by itself; one that was killed has lost its work.

const (
	// freed is what a copy needs to be given back.
	freed = 2 * time.Second
	// A guest whose copy was given up gets none for a while, longer each time.
	shortRest, longRest = 30 * time.Second, 16 * time.Minute
	// forgiven is after how long it begins with the short one again.
	forgiven = time.Hour
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// DefaultReserve is what is left free of a host's memory: a twentieth, in bounds.
func DefaultReserve(total int64) int64 {
	return min(max(total/20, 256*mib), 2*gib, total/4)
}

// Budget decides whose copy of a guest's memory this host can afford. It is safe for
// concurrent use.
type Budget struct {
	reserve int64 // that is left free; no new copy goes below it, none stays below half of it

	mu    sync.Mutex
	left  int64              // what was available at the last look
	given time.Time          // when a copy was given up last
	out   map[string]without // guests whose copy was given up
}

// NewBudget leaves so many bytes of the host's memory free.
func NewBudget(reserve int64) *Budget {
	return &Budget{reserve: reserve, out: map[string]without{}}
}

// without is how long a guest gets no copy.
type without struct {
	until time.Time
	lasts time.Duration
}

// Copy is a copy of a guest's memory on this host.
type Copy struct {
	Guest string
	Bytes int64
}

// Reserve is how many bytes are left free.
func (b *Budget) Reserve() int64 { return b.reserve }

// Look takes in what is available and names the guest whose copy has to go, if one
// has: the largest, for it helps most.
func (b *Budget) Look(now time.Time, available int64, held []Copy) (give Copy, short bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = available
	for guest, w := range b.out {
		if now.Sub(w.until) > forgiven {
			delete(b.out, guest)
		}
	}
	if available >= b.reserve/2 || now.Sub(b.given) < freed {
		return Copy{}, false
	}
	for _, c := range held {
		if c.Bytes > give.Bytes {
			give = c
		}
	}
	if give.Bytes == 0 {
		return Copy{}, false
	}
	lasts := min(max(shortRest, 2*b.out[give.Guest].lasts), longRest)
	b.given, b.out[give.Guest] = now, without{now.Add(lasts), lasts}
	return give, true
}

// Room is how many bytes a guest's copy may take more; less than nothing: it has to go.
// One that is there, if only in part, may grow until copies are given up.
func (b *Budget) Room(guest string, there bool, now time.Time) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.out[guest].until) {
		return -1
	}
	if there {
		return max(0, b.left-b.reserve/2)
	}
	return max(0, b.left-b.reserve)
}
