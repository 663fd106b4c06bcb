package replicator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/undo"
)

// session is one stream from an owner, at the peer.
type session struct {
	r          *Receiver
	stream     Stream
	disks      []*undo.Disk
	generation uint64
	wakes      uint64 // of the replica's Identity, when it was admitted
	lastID     uint64
	applied    atomic.Uint64 // everything up to it is in the disks
	wake       chan struct{} // for the acknowledger
	telling    sync.Mutex    // held while an acknowledgement is sent: they rise
	told       uint64        // the last one
	hashes     chan HashRequest
	wholes     chan whole
	held       backlog     // writes that wait for the log of what is held
	syncing    atomic.Bool // frames wait for a sync that has to come before them
}

// Serve applies what the owner sends over stream until it is lost, ctx ends,
// Stop is called or a newer Serve begins; it returns why, never nil. It closes
// the stream.
func (r *Receiver) Serve(ctx context.Context, stream Stream) error {
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	s := &session{r: r, stream: stream, wake: make(chan struct{}, 1), hashes: make(chan HashRequest, 64), wholes: make(chan whole, 4)}
	s.held.init()
	hello, err := greet(stream)
	if err == nil {
		s.disks, s.generation, s.wakes, err = r.admit(stream, hello)
	}
	admitted := err == nil
	if admitted {
		r.log.Info("replica follows its owner", "epoch", hello.Epoch)
		err = s.run(ctx)
		r.leave(s.generation)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	s.complain(err)
	r.log.Warn("replica stops following its owner", "reason", err)
	if admitted {
		if failed := r.rest(s.wakes); failed != nil && !errors.Is(failed, undo.ErrClosed) && !errors.Is(failed, errShut) {
			r.log.Warn("the replica's disks were not made durable", "error", failed)
		}
	}
	return fmt.Errorf("replica of %s: %w", r.opts.Guest, err)
}

func greet(stream Stream) (Hello, error) {
	kind, body, err := stream.Receive()
	if err != nil {
		return Hello{}, fmt.Errorf("receive from the owner: %w", err)
	}
	var hello Hello
	if kind != KindHello {
		return Hello{}, fmt.Errorf("%w: kind %d where Hello is due", ErrMessage, kind)
	}
	return hello, decode(body, &hello)
}

// complainTime bounds the last word to an owner that may not listen.
const complainTime = time.Second

func (s *session) complain(reason error) {
	timer := time.AfterFunc(complainTime, func() { s.stream.Close() })
	defer timer.Stop()
	// The stream may be the reason; then nobody needs to be told.
	_ = s.stream.Send(KindError, &Failure{Text: reason.Error()})
}

// run applies frames, with goroutines beside it that acknowledge, hash and flush.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var beside sync.WaitGroup
	for _, part := range []func(context.Context) error{s.acknowledge, s.hash, s.flush, s.applyHeld, s.settle} {
		beside.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err)
				s.r.leave(s.generation) // nothing more is applied
				s.complain(err)
				s.stream.Close()
			}
		})
	}
	for {
		err := s.receive(ctx)
		if err == nil {
			continue
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		beside.Wait()
		return err
	}
}

// receive takes one frame and applies it.
func (s *session) receive(ctx context.Context) error {
	kind, body, err := s.stream.Receive()
	if err != nil {
		return fmt.Errorf("receive from the owner: %w", err)
	}
	s.r.heard.Store(time.Now().UnixNano())
	switch kind {
	case KindWrite:
		return s.write(ctx, body)
	case KindZero:
		return s.zero(ctx, body)
	case KindMarker:
		return s.mark(ctx, body)
	case KindHashRequest:
		return s.queueHash(ctx, body)
	case KindHold:
		return s.hold(ctx, body)
	case KindWhole:
		return s.queueWhole(ctx, body)
	default:
		return fmt.Errorf("%w: kind %d from the owner", ErrMessage, kind)
	}
}

// disk finds a disk of the owner's numbering, for a frame that must be next.
func (s *session) disk(number uint32, id uint64) (*undo.Disk, error) {
	if id != s.lastID+1 {
		return nil, fmt.Errorf("%w: frame %d after %d", ErrMessage, id, s.lastID)
	}
	if int64(number) >= int64(len(s.disks)) {
		return nil, fmt.Errorf("%w: disk number %d of %d", ErrMessage, number, len(s.disks))
	}
	return s.disks[number], nil
}

func (s *session) write(ctx context.Context, body []byte) error {
	m, err := decodeWrite(body)
	if err != nil {
		return err
	}
	disk, err := s.disk(m.Disk, m.ID)
	if err != nil {
		return err
	}
	return s.change(ctx, change{id: m.ID, disk: disk, off: m.Offset, length: int64(len(m.Data)), data: m.Data})
}

func (s *session) zero(ctx context.Context, body []byte) error {
	var m Zero
	if err := decode(body, &m); err != nil {
		return err
	}
	disk, err := s.disk(m.Disk, m.ID)
	if err != nil {
		return err
	}
	return s.change(ctx, change{id: m.ID, disk: disk, off: m.Offset, length: m.Length, zero: true})
}

func (s *session) mark(ctx context.Context, body []byte) error {
	var m Marker
	if err := decode(body, &m); err != nil {
		return err
	}
	if m.ID != s.lastID+1 {
		return fmt.Errorf("%w: frame %d after %d", ErrMessage, m.ID, s.lastID)
	}
	if err := s.held.drained(ctx); err != nil {
		return err
	}
	if err := s.r.apply(s.generation, func() error { return s.r.setMark(m.Sequence) }); err != nil {
		return err
	}
	s.lastID = m.ID
	return s.done(m.ID)
}

// queueHash hands a request to the hasher: reading the disk must not hold up
// the acknowledgement of writes.
func (s *session) queueHash(ctx context.Context, body []byte) error {
	var m HashRequest
	if err := decode(body, &m); err != nil {
		return err
	}
	if int64(m.Disk) >= int64(len(s.disks)) || m.Count == 0 || m.Count > maxHashes ||
		m.Offset < 0 || m.Offset >= s.disks[m.Disk].Size() || m.Offset%ChunkSize != 0 ||
		int64(m.Count-1)*ChunkSize >= s.disks[m.Disk].Size()-m.Offset {
		return fmt.Errorf("%w: sums of %d chunks at %d of disk %d", ErrMessage, m.Count, m.Offset, m.Disk)
	}
	select {
	case s.hashes <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hash answers the requests for sums.
func (s *session) hash(ctx context.Context) error {
	for {
		var m HashRequest
		select {
		case m = <-s.hashes:
		case <-ctx.Done():
			return nil
		}
		disk := s.disks[m.Disk]
		reply := HashReply{ID: m.ID, Sums: make([]byte, 0, int(m.Count)*len(undo.Sum{}))}
		for i := range int64(m.Count) {
			off := m.Offset + i*ChunkSize
			sum, err := disk.Hash(off, min(ChunkSize, disk.Size()-off))
			if err != nil {
				return err
			}
			reply.Sums = append(reply.Sums, sum[:]...)
		}
		if err := s.stream.Send(wire.Kind(KindHashReply), &reply); err != nil {
			return fmt.Errorf("send sums to the owner: %w", err)
		}
	}
}

// flush makes writes durable at least every FlushEvery.
func (s *session) flush(ctx context.Context) error {
	tick := time.NewTicker(s.r.opts.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		s.r.mu.Lock()
		dirty := s.r.dirty
		s.r.mu.Unlock()
		if !dirty {
			continue
		}
		if err := s.r.Sync(); err != nil {
			return err
		}
	}
}
