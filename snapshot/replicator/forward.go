package replicator

import (
	"fmt"
	"time"

	"vmctl/snapshot/nbd"
)

// forward brings one write of the guest (data nil: zeroes) to the peer, and
// returns nil when QEMU may tell the guest that it is done. It does not keep
// data after it returned.
func (r *Replicator) forward(disk int, off, length int64, data []byte) error {
	if length == 0 {
		return nil
	}
	since := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	defer func() { r.waiting-- }()
	return r.carry(disk, off, length, data, since)
}

// start is forward for one who does not wait: it calls done with what forward would
// return. With a link, whoever hears of the acknowledgement does.
func (r *Replicator) start(disk int, off int64, data []byte, done func(error)) {
	length, since := int64(len(data)), time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	if l := r.link; l != nil && !r.closed && length <= maxData {
		l.touch(disk, off, length)
		p := l.await(since)
		p.done = nil
		p.over = func(acked bool) {
			if acked {
				done(nil)
			} else {
				go r.carryOn(disk, off, data, since, done)
			}
		}
		l.sendNow(frame{KindWrite, &Write{Disk: uint32(disk), ID: p.id, Offset: off, Data: data}})
		return
	}
	go r.carryOn(disk, off, data, since, done)
}

// carryOn is what is left of a start that somebody has to wait for: whoever wants
// done called waits for it.
func (r *Replicator) carryOn(disk int, off int64, data []byte, since time.Time, done func(error)) {
	r.mu.Lock()
	err := r.carry(disk, off, int64(len(data)), data, since)
	r.waiting--
	r.mu.Unlock()
	done(err)
}

// carry waits until a write is acknowledged by the peer, or recorded as one that the
// replica lacks; r.mu is held, but not while it waits.
func (r *Replicator) carry(disk int, off, length int64, data []byte, since time.Time) error {
	for sending := since; ; sending = time.Now() {
		switch {
		case r.closed:
			return fmt.Errorf("%w: %w", ErrClosed, nbd.ErrHangup)
		case r.link != nil:
			r.link.touch(disk, off, length)
			wait := r.link.put(disk, off, length, data, sending)
			r.mu.Unlock()
			<-wait.done
			r.mu.Lock()
			if wait.acked {
				return nil
			}
			// Lost on the way. Sending it again over a new link does no harm: it
			// was not acknowledged, so nothing newer is on top of it.
		case r.outdated:
			// A link attached from now on compares what is on the source, and
			// this write is there.
			_, err := r.work.add(disk, off, length)
			if err == nil {
				return nil
			}
			r.hold(err)
		default:
			r.stall(since)
		}
	}
}

// stall waits, without a link, until something changes; r.mu is held.
func (r *Replicator) stall(since time.Time) {
	if r.stalled.count == 0 || since.Before(r.stalled.since) {
		r.stalled.since = since
	}
	r.stalled.count++
	changed := r.changed
	r.wakeKeeper()
	r.mu.Unlock()
	<-changed
	r.mu.Lock()
	r.stalled.count--
}

// hold makes a write wait that a process after this one would not know of; r.mu
// is held.
func (r *Replicator) hold(err error) {
	r.log.Error("a write waits: it cannot be recorded for the resync", "error", err)
	r.mu.Unlock()
	time.Sleep(holdFor)
	r.mu.Lock()
}

const holdFor = 100 * time.Millisecond

// recheckRange puts a range into the compare, that of the next link if there is
// none.
func (r *Replicator) recheckRange(disk int, off, length int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if length == 0 {
		return
	}
	added, err := r.work.add(disk, off, length)
	for err != nil && !r.closed {
		r.hold(err)
		_, err = r.work.add(disk, off, length)
	}
	if l := r.link; l != nil {
		l.goal += added
		l.disturbed++
		l.wakeWorkers()
		r.wakeKeeper()
	}
}
