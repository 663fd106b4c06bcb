package node

import (
	"sync"
	"time"

	"vmctl/vm"
)

// A host that runs out of memory loses a process of the kernel's choice, and guests
// are the largest. So the copies of their memory that checkpoints need, here and of
// the peer's guests, go before that happens: a guest without a checkpoint is alarmed
// of, and is protected again by itself; one that was killed has lost its work.

const (
	lookForRoom = 250 * time.Millisecond
	// freed is what a copy needs to be given back.
	freed = 2 * time.Second
	// A guest whose copy was given up gets none for a while, longer each time.
	shortRest, longRest = 30 * time.Second, 16 * time.Minute
	// forgiven is after how long it begins with the short one again.
	forgiven = time.Hour
)

// defaultReserve is what is left free of a host's memory: a twentieth, in bounds.
func defaultReserve(total vm.Size) vm.Size {
	return min(max(total/20, 256*vm.MiB), 2*vm.GiB, total/4)
}

// rooms decides whose copy this host can afford.
type rooms struct {
	available func() (int64, error)
	reserve   int64 // that is left free; no new copy goes below it, none stays below half of it

	mu    sync.Mutex
	left  int64              // what was available at the last look
	given time.Time          // when a copy was given up last
	out   map[string]without // guests whose copy was given up
}

// without is how long a guest gets no copy.
type without struct {
	until time.Time
	lasts time.Duration
}

// copyHeld is a copy of a guest's memory on this host.
type copyHeld struct {
	guest string
	bytes int64
}

// look takes in what is available and names the guest whose copy has to go, if one
// has: the largest, for it helps most.
func (r *rooms) look(now time.Time, available int64, held []copyHeld) (give copyHeld, short bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = available
	for guest, w := range r.out {
		if now.Sub(w.until) > forgiven {
			delete(r.out, guest)
		}
	}
	if available >= r.reserve/2 || now.Sub(r.given) < freed {
		return copyHeld{}, false
	}
	for _, c := range held {
		if c.bytes > give.bytes {
			give = c
		}
	}
	if give.bytes == 0 {
		return copyHeld{}, false
	}
	lasts := min(max(shortRest, 2*r.out[give.guest].lasts), longRest)
	r.given, r.out[give.guest] = now, without{now.Add(lasts), lasts}
	return give, true
}

// of is how many bytes a guest's copy may take more; less than nothing: it has to go.
// One that is there, if only in part, may grow until copies are given up.
func (r *rooms) of(guest string, there bool, now time.Time) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.out[guest].until) {
		return -1
	}
	if there {
		return max(0, r.left-r.reserve/2)
	}
	return max(0, r.left-r.reserve)
}
