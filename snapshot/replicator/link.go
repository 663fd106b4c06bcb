package replicator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"vmctl/node/wire"
)

// frame is a message on its way to the peer.
type frame struct {
	kind wire.Kind
	body any
}

// pending waits for the acknowledgement of a frame.
type pending struct {
	id    uint64
	since time.Time
	done  chan struct{}    // closed when acked or lost; nil: over is called then
	acked bool             // read after done
	over  func(acked bool) // without r.mu
}

// end says to whoever waits that it is over; what it returns, if anything, is to be
// called without r.mu, which is held.
func (p *pending) end(acked bool) func(bool) {
	p.acked = acked
	if p.done != nil {
		close(p.done)
	}
	return p.over
}

// link is one stream to the peer, from Attach to its end. Fields below the
// blank line are guarded by Replicator.mu: putting a frame into the queue under
// it makes the order of the stream.
type link struct {
	r      *Replicator
	stream Stream
	peer   Peer
	ctx    context.Context // ends with the link; its cause says why
	lose   context.CancelCauseFunc
	over   chan struct{} // closed when every goroutine has ended
	wake   chan struct{} // for the sender
	idle   chan struct{} // wakes workers

	queue    []frame
	busy     bool       // somebody sends what was at the head of it
	calm     sync.Cond  // told when busy ends
	pending  []*pending // in order of id
	lastID   uint64
	acked    uint64
	heard    time.Time // when the peer last said something
	requests map[uint64]*hashCall
	lastCall uint64
	batches  map[*batch]struct{} // being examined
	round    int                 // full compares asked for
	began    time.Time           // the compare of this round
	full     bool                // it is one of everything
	goal     int64               // bytes that it is about
	allowed  time.Time           // when the next batch may be begun, with a Rate
	ready    bool                // InSync returned nil for this round
	sent     int64
	differed []Range // what was sent, the first ones

	lastWhole uint64        // question of settleWhole
	settling  uint64        // the one that is open; 0: none
	settled   chan struct{} // closed when it is answered

	watched    map[*batch]struct{} // chunks that a Verify has doubts about; nil: none is under way
	disturbed  int                 // times that something was put into the compare
	distrusted bool                // a Verify found a difference
}

// Peer is what the peer said of its replica before the stream. The zero Peer is
// one that says nothing.
type Peer struct {
	Replica []byte // its Identity
	Holds   bool   // it takes Hold and Whole
}

// Attach runs the replication over stream until it is lost, ctx ends or a newer
// stream is attached; it returns why, never nil. It closes the stream. Attach
// only when every disk's mirror job runs: the compare starts at once.
func (r *Replicator) Attach(ctx context.Context, stream Stream, peer Peer) error {
	l, err := r.install(ctx, stream, peer)
	if err != nil {
		stream.Close()
		return err
	}
	r.mu.Lock()
	goal := l.goal // a mirror that connects now changes it
	r.mu.Unlock()
	r.log.Info("replication link attached", "epoch", r.opts.Epoch, "compare", goal)
	var running sync.WaitGroup
	for _, run := range []func() error{l.send, l.receive, l.watch} {
		running.Go(func() {
			if err := run(); err != nil {
				l.lose(err)
			}
		})
	}
	sources := newSources(r.opts.Disks)
	for range workers {
		running.Go(func() { l.compare(sources) })
	}
	<-l.ctx.Done()
	reason := context.Cause(l.ctx)
	r.detach(l)
	stream.Close()
	running.Wait()
	sources.close()
	r.release(l)
	close(l.over)
	r.log.Warn("replication link lost", "reason", reason)
	return fmt.Errorf("replication link of %s: %w", r.opts.Guest, reason)
}

// install makes the link the present one, after the end of the one before: what
// its workers leave of the work must be there when the new ones look.
func (r *Replicator) install(ctx context.Context, stream Stream, peer Peer) (*link, error) {
	l := &link{
		r: r, stream: stream, peer: peer, over: make(chan struct{}), wake: make(chan struct{}, 1),
		idle:     make(chan struct{}, workers),
		requests: map[uint64]*hashCall{}, batches: map[*batch]struct{}{},
	}
	l.calm.L = &r.mu
	for {
		r.mu.Lock()
		old := r.newest
		if old == nil || old.isOver() {
			break
		}
		r.mu.Unlock()
		old.lose(ErrReplaced)
		<-old.over
	}
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("attach a replication link to %s: %w", r.opts.Guest, ErrClosed)
	}
	l.ctx, l.lose = context.WithCancelCause(ctx)
	if err := r.know(peer); err != nil {
		return nil, fmt.Errorf("attach a replication link to %s: %w", r.opts.Guest, err)
	}
	hello := &Hello{Guest: r.opts.Guest, Epoch: r.opts.Epoch, Replica: peer.Replica, Holds: peer.Holds}
	for _, d := range r.opts.Disks {
		hello.Disks = append(hello.Disks, DiskInfo{Name: d.Name, Size: d.Size})
	}
	l.heard = time.Now()
	l.began = l.heard
	l.push(frame{KindHello, hello})
	if r.work.left > 0 {
		l.beginHold(r.outdated && !r.doubt)
	}
	l.goal, l.full = r.work.left, r.work.left == r.total
	r.link, r.newest = l, l
	r.broadcast()
	return l, nil
}

func (l *link) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// detach stops new frames from going to l.
func (r *Replicator) detach(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == l {
		r.link = nil
		r.broadcast()
	}
}

// release lets those that wait for an acknowledgement over l go. Nobody uses their
// data any more: the sender has ended, and so has who was sending in its place.
func (r *Replicator) release(l *link) {
	r.mu.Lock()
	for l.busy {
		l.calm.Wait()
	}
	var over []func(bool)
	for _, p := range l.pending {
		if call := p.end(false); call != nil {
			over = append(over, call)
		}
	}
	l.pending, l.queue = nil, nil
	r.mu.Unlock()
	for _, call := range over {
		call(false)
	}
}

// phase is what the link has reached; r.mu is held.
func (l *link) phase() Phase {
	if l.ready && l.r.work.finished() && !l.distrusted {
		return InSync
	}
	return Resync
}

// push puts a frame at the end of the stream; r.mu is held.
func (l *link) push(f frame) {
	l.queue = append(l.queue, f)
	l.wakeSender()
}

func (l *link) wakeSender() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// await takes the next id for a frame that the peer acknowledges, which the
// caller pushes before it lets go of r.mu.
func (l *link) await(since time.Time) *pending {
	l.lastID++
	p := &pending{id: l.lastID, since: since, done: make(chan struct{})}
	l.pending = append(l.pending, p)
	return p
}

// put pushes a write (data nil: zeroes), in several frames if it is long, and
// returns what waits for the last; r.mu is held.
func (l *link) put(disk int, off, length int64, data []byte, since time.Time) *pending {
	if data == nil {
		p := l.await(since)
		l.push(frame{KindZero, &Zero{Disk: uint32(disk), ID: p.id, Offset: off, Length: length}})
		return p
	}
	for len(data) > maxData {
		l.lastID++
		l.push(frame{KindWrite, &Write{Disk: uint32(disk), ID: l.lastID, Offset: off, Data: data[:maxData]}})
		data, off = data[maxData:], off+maxData
	}
	p := l.await(since)
	l.push(frame{KindWrite, &Write{Disk: uint32(disk), ID: p.id, Offset: off, Data: data}})
	return p
}
