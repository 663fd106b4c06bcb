package replica

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
)

// DefaultAckTimeout bounds the time in which no chunk gets out, and the wait
// for the Ack.
const DefaultAckTimeout = 30 * time.Second

// Numbers gives out sequences; Counter does.
type Numbers interface {
	// Next gives a number higher than above, never one twice.
	Next(above uint64) (uint64, error)
}

// SenderConfig describes the owner's end.
type SenderConfig struct {
	Epoch      uint64
	Spec       []byte         // hash of the spec that the guest runs with
	Shadow     *memory.Shadow // scanned by the caller, read by Send
	Numbers    Numbers
	Compress   Compression
	Share      *Share        // of the senders of this node; nil: alone
	AckTimeout time.Duration // 0 means DefaultAckTimeout
	Log        *slog.Logger  // nil: none
}

// Sender sends the checkpoints of one guest in one epoch. One goroutine owns
// it. It outlives its streams: after ErrLink, Attach another.
//
// No page is lost with a checkpoint. The caller scans into Delta; Send moves
// the pages to a second set, and they leave that only when the checkpoint is
// known to be committed, by its Ack or by the Ready of the next stream.
// Otherwise they go back, and the next checkpoint, with the same base, has
// them too, with the content the shadow has by then.
type Sender struct {
	cfg      SenderConfig
	stream   Stream
	encoder  *memory.Encoder
	delta    *memory.Delta // changed and not sent
	unproved *memory.Delta // sent, and not known to have arrived
	pending  Begin         // the checkpoint of unproved; Sequence 0: none
	base     uint64        // last sequence known to be committed
	root     uint64        // full image it builds on; 0: the next is a full one
	number   uint64        // last given out here
	above    uint64        // highest number that the peer has seen
	room     int64         // that the peer has for a full image; 0: not known
	idle     *time.Timer   // of the Send under way
	pays     pays
}

// Outgoing is a checkpoint without its RAM, which is in the shadow.
type Outgoing struct {
	Sequence uint64 // from Number
	Blob     []byte // device state
	RunState string // QEMU's word for the guest before the pause
	Time     int64  // wall clock of the pause, ns since 1970
	// Outdated: the replica does not count, durably, until this one is committed.
	Outdated bool
}

// Sent says what a checkpoint cost.
type Sent struct {
	memory.Summary
	Full     bool
	Blob     int           // bytes
	Duration time.Duration // from the first frame to the Ack
}

// NewSender returns a sender whose first checkpoint is a full image.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = DefaultAckTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	encoder, err := memory.NewEncoder()
	if err != nil {
		return nil, err
	}
	pages := cfg.Shadow.Pages()
	return &Sender{cfg: cfg, encoder: encoder, delta: memory.NewDelta(pages), unproved: memory.NewDelta(pages)}, nil
}

// Delta is the set to scan into. It stays the same for the sender's life.
func (s *Sender) Delta() *memory.Delta { return s.delta }

// NeedsFull tells whether the next checkpoint will be a full image.
func (s *Sender) NeedsFull() bool { return s.root == 0 }

// Attached tells whether there is a stream.
func (s *Sender) Attached() bool { return s.stream != nil }

// Attach takes over a new stream and learns where the replica stands.
func (s *Sender) Attach(ctx context.Context, stream Stream) (Ready, error) {
	s.detach()
	s.stream = stream
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	var ready Ready
	if err := s.bounded(ctx, func() error {
		kind, body, err := stream.Receive()
		if err != nil {
			return err
		}
		if kind != KindReady {
			return fmt.Errorf("kind %d instead of the replica's state: %w", kind, ErrProtocol)
		}
		return wire.Decode(body, &ready)
	}); err != nil {
		return Ready{}, fmt.Errorf("attach to the replica: %w", err)
	}
	if ready.Floor > s.cfg.Epoch || ready.Epoch > s.cfg.Epoch {
		s.detach()
		return ready, fmt.Errorf("attach to the replica: it is at epoch %d, we at %d: %w", max(ready.Floor, ready.Epoch), s.cfg.Epoch, ErrStale)
	}
	s.compare(ready)
	s.room = ready.Room
	return ready, nil
}

// compare finds out what became of the last checkpoint and whether the replica
// still is what deltas build on.
func (s *Sender) compare(ready Ready) {
	same := ready.Epoch == s.cfg.Epoch && ready.Memory
	if ready.Newest == s.cfg.Epoch {
		s.above = max(s.above, ready.Highest)
	}
	arrived := s.pending.Sequence != 0 && same && ready.Sequence == s.pending.Sequence && ready.Root == s.pending.Root
	s.settle(arrived)
	if s.root != 0 && !(same && ready.Root == s.root && ready.Sequence >= s.base) {
		s.cfg.Log.Info("replica is not what deltas build on: full image", "root", s.root, "base", s.base,
			"replica_root", ready.Root, "replica_sequence", ready.Sequence, "replica_memory", ready.Memory)
		s.root = 0
	}
}

// settle ends the doubt about the pending checkpoint.
func (s *Sender) settle(committed bool) {
	if s.pending.Sequence == 0 {
		return
	}
	if committed {
		s.base, s.root = s.pending.Sequence, s.pending.Root
	} else {
		_ = s.delta.Merge(s.unproved) // both are of the shadow's size
	}
	s.unproved.Reset()
	s.pending = Begin{}
}

// Number gives the sequence of the next checkpoint; call it before the pause,
// as it may write to the disk. A number given out is used up.
func (s *Sender) Number() (uint64, error) {
	n, err := s.cfg.Numbers.Next(max(s.number, s.above))
	if err != nil {
		return 0, err
	}
	s.number = n
	return n, nil
}

// Forget is for a shadow that was cleared: the next checkpoint is a full image. There
// must be no stream.
func (s *Sender) Forget() {
	s.detach()
	s.delta.Reset()
	s.unproved.Reset()
	s.pending, s.root = Begin{}, 0
}

func (s *Sender) detach() {
	if s.stream != nil {
		_ = s.stream.Close()
		s.stream = nil
	}
}

// Close lets go of the stream. The shadow stays with the caller.
func (s *Sender) Close() error {
	s.detach()
	return nil
}
