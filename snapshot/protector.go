package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
)

// Machine is the running guest as a Protector needs it.
type Machine interface {
	Monitor
	// SaveDevices returns the device state of the stopped guest.
	SaveDevices(ctx context.Context) ([]byte, error)
	// BeginPause tells the guard that the guest is about to be stopped for a
	// checkpoint, for bound at most.
	BeginPause(ctx context.Context, id uint64, bound time.Duration) error
	// EndPause tells the guard that the guest runs again; ended means that the
	// guard had continued it before.
	EndPause(ctx context.Context, id uint64) (ended bool, err error)
	// Exclusive runs f while nobody else changes the run state.
	Exclusive(ctx context.Context, f func(context.Context) error) error
}

// ProtectorConfig describes the guest to protect.
type ProtectorConfig struct {
	UUID  string
	Epoch uint64
	RAM   string // path of the RAM file; empty: disks only, no checkpoints
	// Screen, if set, brings memory that QEMU keeps to itself into the RAM file,
	// with the guest stopped. ErrNotYet: the guest cannot be taken just now.
	Screen  func(ctx context.Context) error
	RAMSize int64
	PID     int    // of QEMU, whose page table tells what it wrote
	Spec    []byte // hash of what the device state belongs to
	Counter string // file that numbers the checkpoints
	Mirror  *Mirror
	Map     replicator.MapOptions // where it is kept which chunks may differ
	Rate    func() int64          // bytes a second that a resync may examine; nil or 0: no bound
	Machine Machine
	Share   *replica.Share // the way to the peer, with this node's other guests; nil: alone
	Turns   *Turns         // to stand still, with the same

	// Outdated says that the peer's replica is durably outdated now, or that
	// there is none: only then may writes go without it from the start.
	Outdated bool
	Detached func() bool // whether it is at present; nil: it is not known
	// Room is how many bytes a copy of the guest's memory may take more here, less
	// than 0: there may be none; nil: it is not known.
	Room func() int64
	// Degrade makes the peer's replica durably outdated; see replicator.Options.
	Degrade func(ctx context.Context) error
	// Synced is called when the replica is complete: with disks only, when they
	// are in sync; else when the first checkpoint is committed.
	Synced func(ctx context.Context) error
	// Noted is told what people should know; kind is the word for it.
	Noted func(kind, text string)
	Log   *slog.Logger

	ackDeadline time.Duration // tests: see replicator.Options; 0: the default
	patience    time.Duration // tests: in place of ackTimeout; 0: that
}

// Protector keeps one running guest's replica up to date. It lives as long as
// QEMU, its links to the peer come and go.
type Protector struct {
	config     ProtectorConfig
	log        *slog.Logger
	replicator *replicator.Replicator // nil: no disks
	sender     *replica.Sender        // nil: no checkpoints
	image      *memory.Image
	shadow     *memory.Shadow
	finder     *memory.Finder
	passes     prePass
	serving    sync.WaitGroup
	stop       context.CancelFunc
	failed     chan error // the replicator ended by itself
	unmirrored chan error // a mirror was found failed as the disks were complete
	handings   chan handing
	voidings   chan voiding

	mu   sync.Mutex
	last Report
	link context.CancelCauseFunc // ends the Protect under way; nil: there is none
	loop chan struct{}           // closed when no more checkpoints are taken on the present link
}

// NewProtector opens what is needed and serves the disks' mirrors. StartMirror
// joins QEMU to it.
func NewProtector(config ProtectorConfig) (_ *Protector, err error) {
	p := &Protector{config: config, log: config.Log.With("guest", config.UUID), failed: make(chan error, 1), unmirrored: make(chan error, 1), handings: make(chan handing), voidings: make(chan voiding)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.closeMemory())
		}
	}()
	if config.RAM != "" {
		if err := p.openMemory(); err != nil {
			return nil, fmt.Errorf("protect the guest: %w", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	if len(config.Mirror.Disks) == 0 {
		return p, nil
	}
	p.replicator, err = replicator.New(replicator.Options{
		Guest: config.UUID, Epoch: config.Epoch, Disks: config.Mirror.replicatorDisks(), Outdated: config.Outdated,
		Map: config.Map, Rate: config.Rate, Degrade: config.Degrade, InSync: p.disksSynced, AckDeadline: config.ackDeadline,
	}, config.Log)
	if err != nil {
		stop()
		return nil, err
	}
	listeners, err := p.replicator.Listen()
	if err != nil {
		stop()
		return nil, err
	}
	p.serving.Go(func() {
		if err := p.replicator.Serve(ctx, listeners); ctx.Err() == nil {
			p.failed <- err
		}
	})
	return p, nil
}

// ackTimeout bounds how long a checkpoint makes no progress.
const ackTimeout = 5 * time.Second

// StartMirror joins QEMU's disks to the replicator, anew. Writes that go past
// it until then are found by the next compare, which is of everything: that is
// known, and stays known if this process dies, before a mirror is touched.
func (p *Protector) StartMirror(ctx context.Context) error {
	if p.replicator == nil {
		return nil
	}
	if err := p.replicator.Recheck(); err != nil {
		return err
	}
	return p.config.Mirror.Start(ctx)
}

// StopMirror takes QEMU's mirrors down; the disks are then written here alone. The
// replica must be outdated durably, and no Protect under way: writes that wait for
// the lost link go on at once.
func (p *Protector) StopMirror(ctx context.Context) error {
	if p.replicator == nil {
		return nil
	}
	p.replicator.NoteOutdated()
	if err := p.replicator.Recheck(); err != nil {
		return err
	}
	return p.config.Mirror.Stop(ctx)
}

// disksSynced is the replicator's word that the peer's disks are complete, which
// they are if no write has gone past the mirrors: a failed one stays failed.
func (p *Protector) disksSynced(ctx context.Context) error {
	if err := p.config.Mirror.Check(ctx); err != nil {
		select {
		case p.unmirrored <- err:
		default: // told already
		}
		return err
	}
	if p.sender != nil {
		return nil // the replica counts with its first checkpoint
	}
	return p.config.Synced(ctx)
}

// Dial opens a stream of a purpose to the peer, which says what it is about.
type Dial func(ctx context.Context) (Stream, replicator.Peer, error)

// Protect runs one link to the peer until it is lost or ctx ends and says why.
// interval gives the time from one checkpoint to the next.
func (p *Protector) Protect(ctx context.Context, disks, checkpoints Dial, interval func() time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.linked(cancel)
	defer p.linked(nil)
	if err := p.checkRoom(); err != nil {
		return errors.Join(err, p.forgetMemory())
	}
	err := p.protect(ctx, cancel, disks, checkpoints, interval)
	if cause := context.Cause(ctx); errors.Is(cause, ErrNoRoom) {
		return errors.Join(cause, p.forgetMemory())
	}
	return err
}

func (p *Protector) protect(ctx context.Context, cancel context.CancelCauseFunc, disks, checkpoints Dial, interval func() time.Duration) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	select {
	case <-p.unmirrored: // of an earlier link; the caller has seen to the mirrors
	default:
	}
	if p.replicator != nil {
		stream, peer, err := disks(ctx)
		if err != nil {
			return err
		}
		parts.Go(func() { cancel(p.replicator.Attach(ctx, stream, peer)) })
	}
	if p.sender == nil {
		return p.watch(ctx)
	}
	if err := p.waitDisks(ctx); err != nil {
		return err
	}
	stream, _, err := checkpoints(ctx)
	if err != nil {
		return err
	}
	if _, err := p.sender.Attach(ctx, stream); err != nil {
		return err
	}
	defer p.sender.Close()
	defer p.looping()()
	return p.checkpoints(ctx, interval)
}

// watch looks after the mirror of a guest that has no checkpoints.
func (p *Protector) watch(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-p.failed:
			return err
		case err := <-p.unmirrored:
			return err
		case <-ticker.C:
		}
		if p.replicator == nil {
			continue
		}
		if err := p.config.Mirror.Check(ctx); err != nil {
			return err
		}
	}
}

// waitDisks waits until every disk is in sync.
func (p *Protector) waitDisks(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for p.replicator != nil && p.replicator.State().Phase != replicator.InSync {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-p.failed:
			return err
		case err := <-p.unmirrored:
			return err
		case <-ticker.C:
		}
	}
	return nil
}

// Last is the newest committed checkpoint; the zero Report if there is none.
func (p *Protector) Last() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Disks is where the disks' replication stands.
func (p *Protector) Disks() replicator.State {
	if p.replicator == nil {
		return replicator.State{Phase: replicator.InSync}
	}
	return p.replicator.State()
}

// Close ends everything; no Protect may be under way. QEMU must be gone, or its
// mirrors stopped: their writes find nobody.
func (p *Protector) Close() error {
	p.stop()
	p.serving.Wait()
	return p.closeMemory()
}
