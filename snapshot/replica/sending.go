package replica

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
)

// Send sends the checkpoint whose RAM the last Scan left in the shadow, which
// must not be scanned meanwhile until the chunks are out (Scan says ErrBusy),
// and waits for its Ack. On ErrLink the stream is gone, and whether the
// checkpoint was committed is not known; on the errors of a refusal the stream
// is good. ErrNeedFull: the next one will be a full image. ErrStale and
// ErrTaken: there is nothing more to send.
func (s *Sender) Send(ctx context.Context, out Outgoing) (Sent, error) {
	started := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.idle = time.AfterFunc(s.cfg.AckTimeout, func() { cancel(context.DeadlineExceeded) })
	defer s.idle.Stop()
	sent, err := s.send(ctx, out)
	sent.Blob, sent.Duration = len(out.Blob), time.Since(started)
	if err != nil {
		return sent, fmt.Errorf("send checkpoint %d/%d: %w", s.cfg.Epoch, out.Sequence, err)
	}
	return sent, nil
}

func (s *Sender) send(ctx context.Context, out Outgoing) (Sent, error) {
	if s.stream == nil {
		return Sent{}, fmt.Errorf("no stream: %w", ErrLink)
	}
	if out.Sequence == 0 || out.Sequence > s.number || out.Sequence <= s.base || out.Sequence <= s.pending.Sequence {
		return Sent{}, fmt.Errorf("it is not the number given out last, %d: %w", s.number, ErrUsed)
	}
	b := Begin{Epoch: s.cfg.Epoch, Sequence: out.Sequence, Base: s.base, Root: s.root, Outdated: out.Outdated,
		RAMSize: s.cfg.Shadow.Size(), RunState: out.RunState, Time: out.Time, Spec: s.cfg.Spec}
	full := s.root == 0
	if full {
		b.Base, b.Root = 0, out.Sequence
		var err error
		if b.Needs, err = s.cfg.Shadow.MarkAll(s.delta); err != nil {
			return Sent{}, err
		}
		if s.room > 0 && b.Needs > s.room {
			return Sent{}, s.bounded(ctx, func() error { return s.offer(b) })
		}
	}
	s.settle(false)
	if err := s.unproved.Merge(s.delta); err != nil {
		return Sent{}, err
	}
	s.delta.Reset()
	s.pending = b
	sent := Sent{Full: full}
	bulk := full || s.unproved.Pages() > bulkPages
	s.cfg.Share.begin(bulk)
	defer s.cfg.Share.end(bulk)
	err := s.bounded(ctx, func() error {
		var err error
		if sent.Summary, err = s.transmit(ctx, b, out.Blob, bulk); err != nil {
			return err
		}
		err = s.answer(KindAck, b)
		s.pays.end(time.Now())
		return err
	})
	if err == nil {
		s.settle(true)
		return sent, nil
	}
	if !errors.Is(err, ErrLink) { // an answer: it was not committed
		s.settle(false)
		if errors.Is(err, ErrNeedFull) {
			s.root = 0
		}
	}
	return sent, err
}

// offer begins a full image that the peer has no room for and ends it at once: it
// says so, and may give up what does not count any more.
func (s *Sender) offer(b Begin) error {
	if err := s.stream.Send(KindBegin, b); err != nil {
		return err
	}
	if err := s.stream.Send(KindEnd, End{Epoch: b.Epoch, Sequence: b.Sequence}); err != nil {
		return err
	}
	if err := s.answer(KindAck, b); err != nil {
		return err
	}
	return fmt.Errorf("an image of which nothing was sent is acknowledged: %w", ErrProtocol)
}

// transmit writes the frames of a checkpoint.
func (s *Sender) transmit(ctx context.Context, b Begin, blob []byte, bulk bool) (memory.Summary, error) {
	s.pays.begin(time.Now())
	if err := s.stream.Send(KindBegin, b); err != nil {
		return memory.Summary{}, err
	}
	index := uint64(0)
	sum, err := s.encoder.Encode(ctx, s.cfg.Shadow, s.unproved, memory.EncodeOptions{Choose: s.compress, SkipZero: b.Base == 0},
		func(chunk memory.Chunk) error {
			m := Chunk{Epoch: b.Epoch, Sequence: b.Sequence, Index: index, Data: chunk}
			index++
			waiting := time.Now()
			if err := s.cfg.Share.chunk(ctx, bulk, len(chunk)); err != nil {
				return err
			}
			s.pays.idle(time.Since(waiting))
			s.idle.Reset(s.cfg.AckTimeout)
			err := s.stream.Send(KindChunk, &m)
			s.pays.sent(chunk.PageBytes(), time.Now())
			return err
		})
	if err != nil {
		return sum, err
	}
	for off := 0; off < len(blob); off += blobPart {
		part := blob[off:min(off+blobPart, len(blob))]
		if err := s.stream.Send(KindBlob, Blob{Epoch: b.Epoch, Sequence: b.Sequence, Offset: int64(off), Data: part}); err != nil {
			return sum, err
		}
	}
	blobSum := sha256.Sum256(blob)
	return sum, s.stream.Send(KindEnd, End{Epoch: b.Epoch, Sequence: b.Sequence, Chunks: sum.Chunks,
		Pages: sum.Pages, Zeros: sum.Zeros, Checksum: sum.Checksum, BlobSum: blobSum[:]})
}

// compress tells whether to compress the next chunk.
func (s *Sender) compress() bool {
	if s.cfg.Compress == CompressIfItPays {
		return s.pays.compress()
	}
	return s.cfg.Compress == CompressAlways
}

// refusedError keeps an answer apart from a broken link.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// answer reads the one reply to an End or a Void.
func (s *Sender) answer(want wire.Kind, b Begin) error {
	kind, body, err := s.stream.Receive()
	if err != nil {
		return err
	}
	switch kind {
	case want:
		var ack Ack
		if err := wire.Decode(body, &ack); err != nil {
			return err
		}
		if ack.Epoch != b.Epoch || ack.Sequence != b.Sequence {
			return fmt.Errorf("acknowledgement of %d/%d: %w", ack.Epoch, ack.Sequence, ErrProtocol)
		}
		return nil
	case KindRefused:
		var refused Refused
		if err := wire.Decode(body, &refused); err != nil {
			return err
		}
		if refused.Epoch != b.Epoch || refused.Sequence != b.Sequence {
			return fmt.Errorf("refusal of %d/%d: %w", refused.Epoch, refused.Sequence, ErrProtocol)
		}
		return refusedError{refused.asError()}
	}
	return fmt.Errorf("kind %d instead of an answer: %w", kind, ErrProtocol)
}

// Void tells the replica that nothing sent so far may be resumed.
func (s *Sender) Void(ctx context.Context, reason string) error {
	if s.stream == nil {
		return fmt.Errorf("void the replica's checkpoints: no stream: %w", ErrLink)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	b := Begin{Epoch: s.cfg.Epoch, Sequence: max(s.number, s.above)}
	err := s.bounded(ctx, func() error {
		if err := s.stream.Send(KindVoid, Void{Epoch: b.Epoch, Sequence: b.Sequence, Reason: reason}); err != nil {
			return err
		}
		return s.answer(KindVoided, b)
	})
	if err != nil {
		return fmt.Errorf("void the replica's checkpoints: %w", err)
	}
	s.settle(false)
	s.root = 0
	return nil
}

// bounded does what blocks on the stream. Anything but a refusal leaves the
// stream in an unknown place: it is closed.
func (s *Sender) bounded(ctx context.Context, do func() error) error {
	stream := s.stream
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	err := do()
	expired := !stop()
	var refused refusedError
	if expired && (err == nil || errors.As(err, &refused)) {
		s.detach() // answered in the last moment: the answer counts
		return err
	}
	if err == nil || errors.As(err, &refused) {
		return err
	}
	s.detach()
	return errors.Join(ErrLink, err, context.Cause(ctx))
}
