package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vmctl/node/wire"
)

// Receive serves one checkpoint stream until it ends, and closes it. A stream
// that ends between frames is no error. More than one may be served: a sender
// comes back before its old connection is seen to be dead.
func (r *Replica) Receive(ctx context.Context, stream Stream) error {
	r.closing.Lock()
	if r.ctx.Err() != nil {
		r.closing.Unlock()
		return errors.Join(fmt.Errorf("receive checkpoints of %s: %w", r.cfg.Name, ErrClosed), stream.Close())
	}
	r.receivers.Add(1)
	r.closing.Unlock()
	defer r.receivers.Done()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { _ = stream.Close() })()
	defer stream.Close()
	in := &receiver{replica: r, stream: stream}
	err := in.run(ctx)
	err = errors.Join(err, in.drop())
	if ctx.Err() != nil && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("receive checkpoints of %s: %w", r.cfg.Name, err)
	}
	return nil
}

// receiver is one stream's state.
type receiver struct {
	replica *Replica
	stream  Stream
	open    bool    // between Begin and End
	begin   Begin   // of the open checkpoint
	staged  *staged // nil if it was refused
	refusal error   // why; told at its End, when the sender listens
	chunk   Chunk   // reused: its buffer is as large as a chunk
}

func (in *receiver) run(ctx context.Context) error {
	ready, err := in.replica.ready(ctx)
	if err != nil {
		return err
	}
	if err := in.stream.Send(KindReady, ready); err != nil {
		return err
	}
	for {
		kind, body, err := in.stream.Receive()
		if errors.Is(err, io.EOF) && !in.open {
			return nil
		}
		if err != nil {
			return err
		}
		if err := in.handle(ctx, kind, body); err != nil {
			return err
		}
	}
}

func (r *Replica) ready(ctx context.Context) (Ready, error) {
	if err := r.acquire(ctx); err != nil {
		return Ready{}, err
	}
	defer r.release()
	if err := r.mend(); err != nil {
		return Ready{}, err
	}
	ready := Ready{Floor: r.floor.Load(), Newest: r.seen.Epoch, Highest: r.seen.Sequence, Memory: r.memory, Room: r.room()}
	known := func(epoch, sequence uint64) {
		if (Begin{Epoch: ready.Newest, Sequence: ready.Highest}).before(epoch, sequence) {
			ready.Newest, ready.Highest = epoch, sequence
		}
	}
	if c := r.rec.Commit; c != nil {
		ready.Epoch, ready.Sequence, ready.Root = c.Begin.Epoch, c.Begin.Sequence, c.Begin.Root
		known(ready.Epoch, ready.Sequence)
	}
	if v := r.rec.Void; v != nil {
		known(v.Epoch, v.Sequence)
	}
	return ready, nil
}

// handle takes one frame. An error ends the stream; what only one checkpoint
// suffers from is told to the sender.
func (in *receiver) handle(ctx context.Context, kind wire.Kind, body []byte) error {
	switch kind {
	case KindBegin:
		return in.handleBegin(ctx, body)
	case KindChunk:
		in.chunk.Data = in.chunk.Data[:0]
		if err := wire.Decode(body, &in.chunk); err != nil {
			return err
		}
		return in.part(in.chunk.Epoch, in.chunk.Sequence, func() error { return in.staged.addChunk(&in.chunk) })
	case KindBlob:
		var m Blob
		if err := wire.Decode(body, &m); err != nil {
			return err
		}
		return in.part(m.Epoch, m.Sequence, func() error { return in.staged.addBlob(&m) })
	case KindEnd:
		return in.handleEnd(ctx, body)
	case KindVoid:
		return in.handleVoid(ctx, body)
	}
	return fmt.Errorf("kind %d: %w", kind, ErrProtocol)
}

func (in *receiver) handleBegin(ctx context.Context, body []byte) error {
	var b Begin
	if err := wire.Decode(body, &b); err != nil {
		return err
	}
	if in.open {
		return fmt.Errorf("checkpoint %d/%d begun inside %d/%d: %w", b.Epoch, b.Sequence, in.begin.Epoch, in.begin.Sequence, ErrProtocol)
	}
	in.open, in.begin = true, b
	in.staged, in.refusal = in.replica.stage(ctx, b)
	return nil
}

// part takes a chunk or a piece of device state.
func (in *receiver) part(epoch, sequence uint64, add func() error) error {
	if !in.open || epoch != in.begin.Epoch || sequence != in.begin.Sequence {
		return fmt.Errorf("part of checkpoint %d/%d out of place: %w", epoch, sequence, ErrProtocol)
	}
	if in.refusal == nil && epoch < in.replica.floor.Load() {
		in.refusal = ErrStale
	}
	if in.refusal == nil {
		in.refusal = add()
	}
	if errors.Is(in.refusal, ErrProtocol) {
		return in.refusal
	}
	if in.refusal != nil {
		return in.drop()
	}
	return nil
}

func (in *receiver) handleEnd(ctx context.Context, body []byte) error {
	var end End
	if err := wire.Decode(body, &end); err != nil {
		return err
	}
	if !in.open || end.Epoch != in.begin.Epoch || end.Sequence != in.begin.Sequence {
		return fmt.Errorf("end of checkpoint %d/%d out of place: %w", end.Epoch, end.Sequence, ErrProtocol)
	}
	err := in.refusal
	if err == nil {
		err = in.replica.commit(ctx, in.staged, &end)
	}
	in.open, in.refusal = false, nil
	if dropErr := in.drop(); dropErr != nil {
		in.replica.cfg.Log.Warn("cannot remove a staged checkpoint", "guest", in.replica.cfg.Name, "error", dropErr)
	}
	if err != nil {
		in.replica.ranOut(ctx, in.begin, err)
		return in.refuse(end.Epoch, end.Sequence, err)
	}
	return in.stream.Send(KindAck, Ack{Epoch: end.Epoch, Sequence: end.Sequence})
}

func (in *receiver) handleVoid(ctx context.Context, body []byte) error {
	var v Void
	if err := wire.Decode(body, &v); err != nil {
		return err
	}
	if in.open {
		return fmt.Errorf("void inside a checkpoint: %w", ErrProtocol)
	}
	if err := in.replica.Void(ctx, v.Epoch, v.Sequence, v.Reason); err != nil {
		return in.refuse(v.Epoch, v.Sequence, err)
	}
	return in.stream.Send(KindVoided, Ack{Epoch: v.Epoch, Sequence: v.Sequence})
}

func (in *receiver) refuse(epoch, sequence uint64, err error) error {
	in.replica.cfg.Log.Warn("checkpoint refused", "guest", in.replica.cfg.Name, "epoch", epoch, "sequence", sequence, "error", err)
	reason := err.Error()
	return in.stream.Send(KindRefused, Refused{Epoch: epoch, Sequence: sequence, Code: codeOf(err), Reason: reason[:min(len(reason), maxText)]})
}

// drop discards what is staged.
func (in *receiver) drop() error {
	if in.staged == nil {
		return nil
	}
	s := in.staged
	in.staged = nil
	return s.discard()
}
