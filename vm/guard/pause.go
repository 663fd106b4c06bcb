package guard

import "time"

const (
	maxPause     = 10 * time.Minute
	recheckPause = time.Second
)

// pauses keeps the one checkpoint pause that may be open, and the ids of those
// the guard ended itself. Pure state, no clock, no I/O.
type pauses struct {
	open  bool
	ended bool // the open pause was ended by the guard
	id    uint64
	owner uint64 // serial of the connection that began it
	bound int64
	due   int64 // when to end it, or to look again; Forever if none is open

	resuming bool       // the guard's own `cont` may be on its way
	again    bool       // another one is wanted after it
	past     [64]uint64 // ids ended by the guard, newest at next-1
	count    uint64
	last     uint64 // highest id begun
}

func newPauses() pauses { return pauses{due: Forever} }

// begin opens a pause. Nothing may be on its way that would let the guest
// continue in the middle of it.
func (p *pauses) begin(now int64, id uint64, bound int64, owner uint64) error {
	switch {
	case bound <= 0 || bound > int64(maxPause) || id == 0:
		return ErrMalformed
	case p.open || p.resuming:
		return ErrPauseBusy
	case id <= p.last:
		return ErrPauseUsed
	}
	p.open, p.ended, p.id, p.owner = true, false, id, owner
	p.bound, p.due, p.last = bound, now+bound, id
	return nil
}

// end closes a pause and says whether the guard had ended it before.
func (p *pauses) end(id uint64) (ended bool, err error) {
	if p.open && p.id == id {
		p.open, p.due = false, Forever
		return p.ended, nil
	}
	for i := range min(p.count, uint64(len(p.past))) {
		if p.past[i] == id {
			return true, nil
		}
	}
	return false, ErrPauseUnknown
}

// expire marks the open pause as ended if its bound has passed, and says whether
// the guest is to be continued now. A pause that stays open is looked at again
// and again: its owner may have been so late that its `stop` came after our `cont`.
func (p *pauses) expire(now int64) bool {
	if !p.open || now < p.due {
		return false
	}
	p.mark()
	p.due = now + max(p.bound, int64(recheckPause))
	return true
}

// drop ends the pause of a connection that is gone, and says whether there was one.
func (p *pauses) drop(owner uint64) bool {
	if !p.open || p.owner != owner {
		return false
	}
	p.mark()
	p.open, p.due = false, Forever
	return true
}

func (p *pauses) mark() {
	if p.ended {
		return
	}
	p.ended = true
	p.past[p.count%uint64(len(p.past))] = p.id
	p.count++
}

// wantResume says whether a `cont` is to be started now. If one is under way,
// another follows it: the guest may have been stopped after that one looked.
func (p *pauses) wantResume() bool {
	if p.resuming {
		p.again = true
		return false
	}
	p.resuming = true
	return true
}

// resumeDone takes the end of a `cont` and says whether another is to be started.
func (p *pauses) resumeDone() bool {
	p.resuming = p.again
	p.again = false
	return p.resuming
}
