package replicator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmctl/snapshot/undo"
)

var (
	// ErrStopped means that Stop was called: the replica takes nothing more.
	ErrStopped = errors.New("replica takes no more writes")
	// ErrStaleEpoch refuses an owner of an earlier epoch.
	ErrStaleEpoch = errors.New("owner's epoch is stale")
	// ErrOtherDisks refuses an owner whose guest or disks are not the replica's.
	ErrOtherDisks = errors.New("owner's disks are not those of the replica")
	// ErrOtherReplica refuses an owner who takes the replica for what it is not.
	ErrOtherReplica = errors.New("replica is not the one that the owner knows")
	// ErrLinkLost ends WaitMark when no stream can bring the marker any more.
	ErrLinkLost = errors.New("replication link is lost")
)

// ReceiverOptions describe a replica.
type ReceiverOptions struct {
	Guest      string
	Epoch      uint64                // least epoch an owner must have
	Disks      map[string]*undo.Disk // all disks of the guest, by name; stay the caller's
	FlushEvery time.Duration         // longest time a write stays only in memory (1 s)
	Identity   *Identity             // nil: none, every owner compares everything
	HoldLimit  int64                 // bytes that holding an older content may take; 0: a quarter of the disks'
	// Silent is when the owner's node fell silent last; the zero Time, or nil: it is not
	// known to have been.
	Silent func() time.Time
	// Noted, if set, is told what people should know; kind is the word for it.
	Noted func(kind, text string)
}

// Receiver is the peer's side for one guest. It outlives streams: each Serve
// takes the place of the one before.
type Receiver struct {
	opts ReceiverOptions
	log  *slog.Logger

	// mu is held for each write to a disk, so that nothing lands after Stop or
	// a newer Serve has taken it.
	mu         sync.Mutex
	generation uint64 // of the stream that may write
	stream     Stream // nil: none
	stopped    bool
	epoch      uint64 // newest an owner had
	marked     bool
	mark       uint64        // newest marker of all disks
	changed    chan struct{} // closed and made anew when stream, stopped or mark change
	dirty      bool          // written since the last flush began
	holding    bool          // the disks hold an older content
	turn       uint64        // how many Holds have come

	heard atomic.Int64 // wall clock of the last frame, ns since 1970

	turning sync.Mutex // held while holding changes; before mu
	syncing sync.Mutex // one Sync at a time, with what becomes of its failure
}

// NewReceiver makes a Receiver; nothing happens before Serve.
func NewReceiver(opts ReceiverOptions, log *slog.Logger) *Receiver {
	setDefault(&opts.FlushEvery, time.Second)
	return &Receiver{opts: opts, epoch: opts.Epoch, log: log.With("guest", opts.Guest), changed: make(chan struct{})}
}

// Stop refuses all frames from now on, also those that are already received.
// When it has returned, nothing writes to the disks any more, and the caller may
// roll them back. Serve ends soon.
func (r *Receiver) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.generation++
	if r.stream != nil {
		r.stream.Close()
		r.stream = nil
	}
	r.broadcast()
}

// Sync makes everything applied so far durable, undo logs before data. What is
// lost when that fails nobody knows: the replica is another one from then on.
func (r *Receiver) Sync() error {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	r.mu.Lock()
	r.dirty = false
	r.mu.Unlock()
	for name, disk := range r.opts.Disks {
		if err := disk.Sync(); err != nil {
			r.mu.Lock()
			r.dirty = true
			r.mu.Unlock()
			return r.spoilt(fmt.Errorf("flush replica disk %s: %w", name, err))
		}
	}
	return nil
}

// WaitMark waits until marker sequence is set on all disks. ErrLinkLost when
// there is no stream that could bring it.
func (r *Receiver) WaitMark(ctx context.Context, sequence uint64) error {
	for {
		r.mu.Lock()
		changed, err := r.changed, error(nil)
		switch {
		case r.marked && r.mark >= sequence:
			r.mu.Unlock()
			return nil
		case r.stopped:
			err = ErrStopped
		case r.stream == nil:
			err = ErrLinkLost
		}
		r.mu.Unlock()
		if err == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return fmt.Errorf("wait for marker %d of %s: %w", sequence, r.opts.Guest, err)
	}
}

// spoilt is for an error that leaves the content of a disk unknown.
func (r *Receiver) spoilt(err error) error {
	if errors.Is(err, undo.ErrClosed) {
		return err
	}
	return errors.Join(err, r.opts.Identity.Renew())
}

// rest makes everything durable after a stream has ended, and keeps that so it is
// known after a boot of this host, unless another stream is about to write.
func (r *Receiver) rest(since uint64) error {
	if err := r.Sync(); err != nil {
		return err
	}
	return r.opts.Identity.Rest(since, r.followedUntil(time.Now()))
}

// followedUntil is the last moment at which the disks are known to have been the
// guest's: now, or when the owner fell silent. A link that is cut ends much later, and
// often not before the owner is heard again; he has gone on without it meanwhile.
func (r *Receiver) followedUntil(now time.Time) time.Time {
	if r.opts.Silent == nil {
		return now
	}
	if silent := r.opts.Silent(); !silent.IsZero() && silent.UnixNano() > r.heard.Load() && silent.Before(now) {
		return silent
	}
	return now // it fell silent earlier, and was heard since
}

// Close is Stop, and leaves everything durable for whoever opens the replica next.
func (r *Receiver) Close() error {
	r.Stop()
	err := r.rest(r.opts.Identity.woken())
	r.opts.Identity.close()
	return err
}

// broadcast wakes WaitMark; r.mu is held.
func (r *Receiver) broadcast() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// admit checks an owner's Hello and makes stream the one that may write. It
// returns the disks in the owner's order, the generation to write with, and what
// Identity.Rest has to know after it.
func (r *Receiver) admit(stream Stream, hello Hello) (_ []*undo.Disk, generation, wakes uint64, err error) {
	if hello.Guest != r.opts.Guest || len(hello.Disks) != len(r.opts.Disks) {
		return nil, 0, 0, fmt.Errorf("guest %q with %d disks, here it is %q with %d: %w",
			hello.Guest, len(hello.Disks), r.opts.Guest, len(r.opts.Disks), ErrOtherDisks)
	}
	var disks []*undo.Disk
	seen := map[string]bool{}
	for _, d := range hello.Disks {
		disk := r.opts.Disks[d.Name]
		if disk == nil || seen[d.Name] || disk.Size() != d.Size {
			return nil, 0, 0, fmt.Errorf("disk %q of %d bytes: %w", d.Name, d.Size, ErrOtherDisks)
		}
		seen[d.Name] = true
		disks = append(disks, disk)
	}
	r.turning.Lock()
	defer r.turning.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped:
		return nil, 0, 0, ErrStopped
	case hello.Epoch < r.epoch:
		return nil, 0, 0, fmt.Errorf("epoch %d, here it is %d: %w", hello.Epoch, r.epoch, ErrStaleEpoch)
	case len(hello.Replica) > 0 && !bytes.Equal(hello.Replica, r.opts.Identity.Value()):
		return nil, 0, 0, ErrOtherReplica
	}
	if wakes, err = r.opts.Identity.Wake(); err != nil {
		return nil, 0, 0, err
	}
	if !hello.Holds { // it will not say when the content is whole
		if err := r.letGo(); err != nil {
			return nil, 0, 0, err
		}
	}
	r.epoch = hello.Epoch
	r.generation++
	if r.stream != nil {
		r.stream.Close()
	}
	r.stream = stream
	r.broadcast()
	return disks, r.generation, wakes, nil
}

// leave takes the stream of a generation away.
func (r *Receiver) leave(generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation == generation {
		r.generation++
		r.stream = nil
		r.broadcast()
	}
}

// apply runs one change of the disks, unless the generation is over.
func (r *Receiver) apply(generation uint64, change func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != generation {
		return ErrStopped
	}
	r.dirty = true
	return change()
}

// setMark sets a marker on all disks; r.mu is held.
func (r *Receiver) setMark(sequence uint64) error {
	for name, disk := range r.opts.Disks {
		if err := disk.Mark(sequence); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	r.mark, r.marked = sequence, true
	r.broadcast()
	return nil
}
