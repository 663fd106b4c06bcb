package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/wire"
)

// Purpose names the connections that carry the lease protocol and nothing
// else, so that no bulk data delays a renewal.
const Purpose = "lease"

const (
	// silence ends a lease connection that has been silent this long:
	// heartbeats are five times as frequent, and a new connection is made while
	// the lease still lasts.
	silence = time.Second
	// witnessSilence is the same for the link to a witness, to which a calm node
	// speaks every third of a lease: two ticks late must not end the link, and
	// a new one must still be there before the lease ends.
	witnessSilence = 1300 * time.Millisecond
	redialPause    = 100 * time.Millisecond
	// longestPause is what the pause grows to while a target cannot be reached.
	// A thousand pairs whose witness comes back must not keep it busy refusing.
	longestPause = 400 * time.Millisecond
	linkIdle     = 30 * time.Second
	linkQueue    = 32
	// stale is how long a message may wait for its link: one that is later says
	// a wrong thing.
	stale = 500 * time.Millisecond
)

// Links carries the lease protocol's messages. Sending never waits: a message
// that finds its queue full or its link down is lost, as the protocol allows.
type Links struct {
	dial    func(ctx context.Context, to ha.NodeID) (*wire.Conn, error)
	deliver func(ha.Message)
	status  func(to ha.NodeID, up bool)
	log     *slog.Logger
	ctx     context.Context // ends the outgoing links
	tasks   sync.WaitGroup

	mu       sync.Mutex
	ended    bool // no new links
	outgoing map[ha.NodeID]*outlet
	incoming map[ha.NodeID]*outlet
}

// New makes links. dial connects to a target (nil for a witness, which only
// answers, and status with it); deliver gets every message, status hears when an outgoing link
// comes up or breaks. Both must not wait. The links end with ctx; Wait then
// waits for them.
func New(ctx context.Context, dial func(context.Context, ha.NodeID) (*wire.Conn, error),
	deliver func(ha.Message), status func(ha.NodeID, bool), log *slog.Logger) *Links {
	return &Links{
		ctx: ctx, dial: dial, deliver: deliver, status: status, log: log,
		outgoing: map[ha.NodeID]*outlet{}, incoming: map[ha.NodeID]*outlet{},
	}
}

// Wait returns when ctx has ended and every outgoing link with it.
func (l *Links) Wait() {
	<-l.ctx.Done()
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.tasks.Wait()
}

// outlet is one queue of messages on their way.
type outlet struct {
	queue chan queued
	used  time.Time
}

type queued struct {
	message ha.Message
	at      time.Time
}

func newOutlet() *outlet { return &outlet{queue: make(chan queued, linkQueue), used: time.Now()} }

// Send queues a message for its link; a link to a new target is made.
func (l *Links) Send(to ha.NodeID, message ha.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := l.outgoing
	if isReply(message) {
		table = l.incoming
	}
	out := table[to]
	if out == nil {
		if isReply(message) || l.ended || l.dial == nil {
			return
		}
		out = newOutlet()
		l.outgoing[to] = out
		l.tasks.Go(func() { l.keepUp(to, out) })
	}
	out.used = time.Now()
	select {
	case out.queue <- queued{message, out.used}:
	default:
	}
}

// keepUp holds a link to a target as long as messages are sent to it.
func (l *Links) keepUp(to ha.NodeID, out *outlet) {
	defer func() {
		l.mu.Lock()
		delete(l.outgoing, to)
		l.mu.Unlock()
	}()
	var last string
	pause := redialPause
	for l.ctx.Err() == nil && !l.idle(out) {
		conn, err := l.dial(l.ctx, to)
		if err == nil {
			last, pause = "", redialPause
			l.status(to, true)
			err = l.carry(conn, to, out)
			l.status(to, false)
		}
		if l.ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != last {
			l.log.Info("lease link is down", "to", to, "error", text)
			last = text
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)): // nodes are not in step
		case <-l.ctx.Done():
		}
		pause = min(2*pause, longestPause)
		drain(out.queue)
	}
}

func (l *Links) idle(out *outlet) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(out.used) > linkIdle
}

// drain throws away what was queued while a link was down: a heartbeat that is
// late says a wrong thing.
func drain(queue chan queued) {
	for {
		select {
		case <-queue:
		default:
			return
		}
	}
}

// carry runs one connection: a writer here, a reader beside it.
func (l *Links) carry(conn *wire.Conn, from ha.NodeID, out *outlet) error {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var reader sync.WaitGroup
	defer reader.Wait()
	defer conn.Close()
	in, form := NewDecoder(from), NewEncoder(conn.Version())
	reader.Go(func() {
		for {
			kind, body, err := conn.Receive()
			if err != nil {
				cancel(err)
				return
			}
			message, err := in.Message(kind, body)
			if err != nil {
				cancel(err)
				return
			}
			l.deliver(message)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next := <-out.queue:
			if time.Since(next.at) > stale {
				continue
			}
			kind, body, err := form.Frame(next.message)
			if err != nil {
				return err
			}
			if err := conn.Send(kind, body); err != nil {
				return err
			}
		}
	}
}

// Options bound a lease connection between nodes: a side that hears nothing for
// silence, or cannot write, gives it up. The frames are small, and so is what is
// read ahead.
func Options() wire.Options {
	return wire.Options{MaxFrame: 1 << 20, Buffer: 4 << 10, ReadTimeout: silence, WriteTimeout: silence}
}

// WitnessOptions bound a lease connection to a witness.
func WitnessOptions() wire.Options {
	opts := Options()
	opts.ReadTimeout, opts.WriteTimeout = witnessSilence, witnessSilence
	return opts
}

// Serve carries a lease connection that came in; it is a peer.Handler.
func (l *Links) Serve(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	conn.SetTimeouts(silence, silence)
	from, out := ha.NodeID(hello.Node), newOutlet()
	l.mu.Lock()
	l.incoming[from] = out
	l.mu.Unlock()
	err := l.carry(conn, from, out)
	l.mu.Lock()
	if l.incoming[from] == out {
		delete(l.incoming, from)
	}
	l.mu.Unlock()
	l.log.Debug("lease connection ended", "from", from, "error", err)
}
