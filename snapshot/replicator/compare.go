package replicator

import (
	"time"

	"vmctl/snapshot/undo"
)

const (
	// workers is how many batches are examined at once: it hides the round trip
	// and bounds what lies in the stream before a guest's write to 4 MiB.
	workers = 4
	// mergeAbove is how many spans a batch records before it joins them.
	mergeAbove = 512
	// sourceRetry is the pause after a failed read of the live disk.
	sourceRetry = 200 * time.Millisecond
)

// batch is a range being examined.
type batch struct {
	disk    int
	off     int64
	length  int64
	touched []span // forwarded since the examination began
}

// hashCall waits for the sums of a batch.
type hashCall struct {
	since  time.Time
	chunks int
	sums   [chunksPerBatch]undo.Sum
	done   chan struct{}
}

// touch records that a range is being forwarded; r.mu is held.
func (l *link) touch(disk int, off, length int64) {
	touchIn(l.batches, disk, off, length)
	touchIn(l.watched, disk, off, length)
}

func touchIn(batches map[*batch]struct{}, disk int, off, length int64) {
	for b := range batches {
		from, to := max(off, b.off), min(off+length, b.off+b.length)
		if b.disk == disk && from < to {
			b.touched = append(b.touched, span{from, to})
			if len(b.touched) > mergeAbove {
				b.touched = merge(b.touched)
			}
		}
	}
}

func (l *link) wakeWorkers() {
	for range workers {
		select {
		case l.idle <- struct{}{}:
		default:
			return
		}
	}
}

// compare is a worker: it examines batches until the link ends.
func (l *link) compare(sources *sources) {
	buf := make([]byte, batchSize)
	for l.ctx.Err() == nil {
		b, wait := l.begin()
		if b == nil {
			l.rest(wait)
			continue
		}
		err := l.examine(b, buf[:b.length], sources)
		l.finish(b, err)
		if err != nil && l.ctx.Err() == nil {
			l.r.log.Warn("compare of a chunk failed, it will be tried again", "disk", l.r.opts.Disks[b.disk].Name, "offset", b.off, "error", err)
			select {
			case <-l.ctx.Done():
			case <-time.After(sourceRetry):
			}
		}
	}
}

// begin takes a batch; from now on what is forwarded into it is recorded. If there
// is none now, wait says when to look again; 0: when woken.
func (l *link) begin() (b *batch, wait time.Duration) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	now := time.Now()
	if wait := l.allowed.Sub(now); wait > 0 {
		return nil, wait
	}
	if l.distrusted { // to be outdated before it is repaired
		return nil, 0
	}
	disk, off, length, ok := l.r.work.take()
	if !ok {
		return nil, 0
	}
	if rate := l.r.rate(); rate > 0 {
		l.allowed = later(l.allowed, now.Add(-burst)).Add(time.Duration(float64(length) / float64(rate) * float64(time.Second)))
	}
	b = &batch{disk: disk, off: off, length: length}
	l.batches[b] = struct{}{}
	return b, 0
}

// rest is what a worker does without a batch.
func (l *link) rest(wait time.Duration) {
	var due <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-l.ctx.Done():
	case <-l.idle:
	case <-due:
	}
}

// burst is how much later than allowed batches may begin without being held back
// the more for it later.
const burst = 50 * time.Millisecond

// finish ends the examination; a batch that failed goes back into the work.
func (l *link) finish(b *batch, err error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	delete(l.batches, b)
	if err != nil {
		l.r.work.failed(b.disk, b.off, b.length)
	} else {
		l.r.work.done(b.disk, b.off, b.length, l.examined(b.disk))
	}
	if l.r.work.finished() {
		l.r.wakeKeeper()
	}
}

// examined are the batches of a disk under examination; r.mu is held.
func (l *link) examined(disk int) (all []span) {
	for b := range l.batches {
		if b.disk == disk {
			all = append(all, span{b.off, b.off + b.length})
		}
	}
	return all
}

// examine compares one batch with the peer's and sends what differs. It returns
// when the peer has it.
func (l *link) examine(b *batch, buf []byte, sources *sources) error {
	call := l.request(b)
	if err := sources.read(l.ctx, b.disk, buf, b.off); err != nil {
		l.forget(call)
		return err
	}
	select {
	case <-call.done:
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
	last := l.sendDiffering(b, buf, differing(buf, call))
	if last == nil {
		return nil
	}
	select {
	case <-last.done:
		return nil
	case <-l.ctx.Done(): // the sender may still read buf, which is not used again
		return l.ctx.Err()
	}
}

// request asks the peer for the sums of a batch.
func (l *link) request(b *batch) *hashCall {
	call := &hashCall{
		since: time.Now(), done: make(chan struct{}),
		chunks: int((b.length + ChunkSize - 1) / ChunkSize),
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.lastCall++
	l.requests[l.lastCall] = call
	l.push(frame{KindHashRequest, &HashRequest{Disk: uint32(b.disk), ID: l.lastCall, Offset: b.off, Count: uint32(call.chunks)}})
	return call
}

// forget waits for the answer to a request that is of no use any more: an
// answer without a request would be taken for a broken peer.
func (l *link) forget(call *hashCall) {
	select {
	case <-call.done:
	case <-l.ctx.Done():
	}
}

// run is a part of a batch that differs, all zeroes or not.
type run struct {
	span // relative to the batch
	zero bool
}

// differing lists the chunks whose sums differ, neighbours joined.
func differing(buf []byte, call *hashCall) []run {
	var runs []run
	for i := range call.chunks {
		from := int64(i) * ChunkSize
		to := min(from+ChunkSize, int64(len(buf)))
		chunk := buf[from:to]
		if undo.SumOf(chunk) == call.sums[i] {
			continue
		}
		zero := undo.IsZero(chunk)
		if n := len(runs); n > 0 && runs[n-1].to == from && runs[n-1].zero == zero {
			runs[n-1].to = to
			continue
		}
		runs = append(runs, run{span{from, to}, zero})
	}
	return runs
}

// sendDiffering puts the runs into the stream, without what was forwarded since
// they were read. It returns the last frame's wait, nil if there was none.
func (l *link) sendDiffering(b *batch, buf []byte, runs []run) *pending {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	var last *pending
	now := time.Now()
	b.touched = merge(b.touched)
	for _, r := range runs {
		for _, part := range subtract(span{b.off + r.from, b.off + r.to}, b.touched) {
			var data []byte
			if !r.zero {
				data = buf[part.from-b.off : part.to-b.off]
			}
			last = l.put(b.disk, part.from, part.to-part.from, data, now)
			l.sent += part.to - part.from
			if len(l.differed) < mostRanges {
				l.differed = append(l.differed, Range{l.r.opts.Disks[b.disk].Name, part.from, part.to - part.from})
			}
		}
	}
	return last
}
