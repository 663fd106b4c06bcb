package replicator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

var (
	// ErrNotInSync means that a marker makes no sense now: the replica lacks
	// something. Wait for InSync.
	ErrNotInSync = errors.New("replica is not in sync")
	// ErrClosed means that Serve has ended.
	ErrClosed = errors.New("replicator has ended")
	// ErrReplaced ends a link when a newer one is attached.
	ErrReplaced = errors.New("link was replaced by a newer one")
	// ErrSilent ends a link whose peer acknowledges nothing in time.
	ErrSilent = errors.New("peer does not answer")
	// ErrPeer ends a link when the peer refuses or fails.
	ErrPeer = errors.New("peer reports a failure")
	// ErrOptions means options that make no sense.
	ErrOptions = errors.New("bad replicator options")
)

// Source is a read-only view of the live disk: QEMU's own export of it
// (nbd.Client). Reads come from several goroutines.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Disk is one disk of the guest.
type Disk struct {
	Name   string // the name of the export, and of the disk at the peer
	Size   int64  // bytes
	Socket string // path of the unix socket QEMU's mirror connects to; disks may share one
	// Source opens the view for the compare; called once per link and again
	// after a failed read.
	Source func(ctx context.Context) (Source, error)
}

// Options of a Replicator. Times of zero have the default in parentheses.
type Options struct {
	Guest string
	Epoch uint64
	Disks []Disk

	Map MapOptions // where what may differ is kept for a process after this one

	AckDeadline    time.Duration // longest silence of the peer while writes wait (1 s)
	MaxStall       time.Duration // longest wait of one write on a slow but living link (5 s)
	DegradeTimeout time.Duration // bound of one call of Degrade (3 s)

	// Outdated says that the replica is durably outdated, or that there is none,
	// at start.
	Outdated bool
	// Degrade makes the replica durably outdated: after nil it is never promoted
	// on its own. Called again until it succeeds or a link is back.
	Degrade func(ctx context.Context) error
	// InSync makes the replica count again, durably. The state is insync once it
	// returned nil. ctx ends when the link is lost; the next Degrade waits for
	// the return.
	InSync func(ctx context.Context) error
	// Rate, if set, is how many bytes of the disks a compare may examine a second;
	// 0: as many as it can. It is asked often.
	Rate func() int64
	// Changed, if set, is told the state at every change and four times a second
	// during a compare. It must return soon.
	Changed func(State)
}

// Phase is what the replica is good for.
type Phase string

// The phases.
const (
	Detached Phase = "detached" // no link
	Resync   Phase = "resync"   // writes are forwarded, the rest is being compared
	InSync   Phase = "insync"   // the peer has every acknowledged write
)

// State is a view of the replicator at one moment.
type State struct {
	Phase    Phase
	Outdated bool      // the replica is durably outdated: guest writes do not wait for a lost link
	Compared int64     // bytes of the present compare that are done
	Total    int64     // bytes it is about; without a link, those of all disks
	Full     bool      // it compares everything, and not only what may differ
	Sent     int64     // bytes that differed in the present compare
	Dirty    int64     // bytes that may differ, to the chunk
	Waiting  int       // guest writes that are not acknowledged yet
	Since    time.Time // the present compare began
}

// Remaining is how long the compare will take if it goes on as it went until
// now; 0: not known.
func (s State) Remaining(now time.Time) time.Duration {
	if s.Phase != Resync || s.Compared <= 0 || s.Compared >= s.Total {
		return 0
	}
	return time.Duration(float64(now.Sub(s.Since)) * float64(s.Total-s.Compared) / float64(s.Compared))
}

// Replicator is the owner's side for one guest.
type Replicator struct {
	opts  Options
	log   *slog.Logger
	total int64
	kick  chan struct{} // wakes the keeper
	// settle is how long after a look a write that it saw may take to be
	// forwarded by QEMU.
	settle time.Duration

	mu       sync.Mutex
	link     *link // nil: detached
	newest   *link // it or the one before, which may not be over yet
	outdated bool
	closed   bool
	changed  chan struct{} // closed and made anew when one of the above changes
	work     work          // what may differ from the replica
	replica  []byte        // the Identity that work is about; nil: everything is in it
	doubt    bool          // the replica may have what the disks never had
	loaded   bool          // work came from an earlier process
	expected []bool        // disks whose mirrors come back after that
	stalled  stalled
	waiting  int
}

// stalled counts guest writes that wait without a link.
type stalled struct {
	count int
	since time.Time // when the first of them came from QEMU
}

// New makes a Replicator; it does nothing before Serve.
func New(opts Options, log *slog.Logger) (*Replicator, error) {
	setDefault(&opts.AckDeadline, time.Second)
	setDefault(&opts.MaxStall, 5*opts.AckDeadline)
	setDefault(&opts.DegradeTimeout, 3*time.Second)
	if opts.Degrade == nil || opts.InSync == nil || len(opts.Disks) == 0 {
		return nil, fmt.Errorf("replicator of %s: Degrade, InSync and a disk are needed: %w", opts.Guest, ErrOptions)
	}
	r := &Replicator{
		opts: opts, log: log.With("guest", opts.Guest), outdated: opts.Outdated, settle: time.Second,
		kick: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	names := map[string]bool{}
	for _, d := range opts.Disks {
		if d.Name == "" || names[d.Name] || d.Size <= 0 || d.Source == nil {
			return nil, fmt.Errorf("replicator of %s: disk %q has no name, size or source, or is there twice: %w", opts.Guest, d.Name, ErrOptions)
		}
		names[d.Name] = true
		r.total += d.Size
	}
	return r, r.open()
}

// open makes the work everything, or what an earlier process left of it.
func (r *Replicator) open() error {
	r.work, r.expected = newWork(r.opts.Disks), make([]bool, len(r.opts.Disks))
	file, known, replica, err := openMap(r.opts.Map, r.opts.Guest, r.opts.Epoch, r.opts.Disks)
	if err != nil {
		return fmt.Errorf("replicator of %s: %w", r.opts.Guest, err)
	}
	if known == nil {
		_ = r.work.addAll() // as the file says already
		r.work.file = file
		return nil
	}
	r.loaded, r.replica = true, replica
	for i, words := range known {
		_, _ = r.work.or(i, 0, len(words), func(word int) uint64 { return words[word] })
		r.expected[i] = true
	}
	r.work.file = file
	r.log.Info("what may differ from the replica is known from an earlier process", "bytes", r.work.left)
	return nil
}

// know makes the work what may differ from the peer's replica: everything if it
// is not the one that is known; r.mu is held.
func (r *Replicator) know(peer Peer) error {
	if len(peer.Replica) > 0 && bytes.Equal(peer.Replica, r.replica) {
		return nil
	}
	r.replica = nil
	if err := r.work.addAll(); err != nil {
		return err
	}
	r.replica = peer.Replica
	return r.work.file.about(peer.Replica)
}

func (r *Replicator) rate() int64 {
	if r.opts.Rate == nil {
		return 0
	}
	return r.opts.Rate()
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// State is how things are now.
func (r *Replicator) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state()
}

func (r *Replicator) state() State {
	s := State{Phase: Detached, Outdated: r.outdated, Total: r.total, Dirty: r.work.left, Waiting: r.waiting}
	if l := r.link; l != nil {
		s.Phase = l.phase()
		s.Compared, s.Total, s.Full, s.Sent, s.Since = l.goal-r.work.left, l.goal, l.full, l.sent, l.began
	}
	return s
}

// Mark puts marker sequence into the stream behind every write acknowledged so
// far. Call it while the guest is stopped and drained. It returns at once;
// ErrNotInSync when the replica lacks something.
func (r *Replicator) Mark(_ context.Context, sequence uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.link
	if l == nil || l.phase() != InSync {
		return fmt.Errorf("mark %d: %s: %w", sequence, r.state().Phase, ErrNotInSync)
	}
	p := l.await(time.Now())
	l.push(frame{KindMarker, &Marker{ID: p.id, Sequence: sequence}})
	return nil
}

// Recheck compares everything again, over the present link or the next one, and
// calls InSync again after it: for when the mirror is rebuilt, before that begins,
// or is not trusted. If guest writes can have gone past the mirror, outdate the
// replica before. An error means that a process after this one could trust it.
func (r *Replicator) Recheck() error {
	r.mu.Lock()
	r.loaded = false
	clear(r.expected)
	err := r.work.addAll()
	r.doubt = r.doubt || r.newest != nil // writes may have gone past one mirror and not another
	if l := r.link; l != nil {
		l.beginHold(false)
		l.ready, l.sent, l.differed, l.began = false, 0, nil, time.Now()
		l.goal, l.full = r.work.left, true
		l.round++
		l.disturbed++
		l.wakeWorkers()
	}
	r.mu.Unlock()
	r.wakeKeeper()
	return err
}

// broadcast tells those that wait that link, outdated or closed changed; r.mu
// is held.
func (r *Replicator) broadcast() {
	close(r.changed)
	r.changed = make(chan struct{})
	r.wakeKeeper()
}

func (r *Replicator) wakeKeeper() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}
