package notify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// errRefused: the target will never take this delivery, but may take others.
var errRefused = errors.New("refused")

// sender delivers to one target, once.
type sender interface {
	send(ctx context.Context, d Delivery) error
	name() string // for the log: without secrets
}

// Notifier hands events to its targets. Its methods are safe for concurrent use.
type Notifier struct {
	log *slog.Logger
	run string // tells the ids of this run from others'

	mu      sync.Mutex
	number  int
	last    uint64 // the newest position
	repeats repeats
	targets []*target
	wake    chan struct{} // capacity 1: there is a new window
}

type target struct {
	sender
	least int           // rank of the severity of the events it gets
	wake  chan struct{} // capacity 1
	kind  string        // of target
	key   string        // by which the next run knows it

	// Guarded by the notifier's lock.
	queue   queue
	from    uint64    // what is up to here is not told to it
	ended   int       // deliveries that were taken or refused
	told    int       // delivered
	failing time.Time // since when it takes nothing; zero: it works
	reason  error
}

// New makes a notifier and checks what c names: programs, secrets, authorities.
// Nothing is sent before Run.
func New(c Config, log *slog.Logger) (*Notifier, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	senders, least := make([]sender, len(c)), make([]int, len(c))
	for i, t := range c {
		least[i] = rank(t.Least)
		var err error
		switch {
		case t.Webhook != "":
			senders[i], err = newWebhook(t)
		case t.Exec != "":
			senders[i], err = newHook(t, log)
		default:
			senders[i] = newSyslog(t)
		}
		if err != nil {
			return nil, fmt.Errorf("notify: target %d: %w", i+1, err)
		}
	}
	n := newNotifier(senders, log)
	for i, t := range n.targets {
		t.least = least[i]
		t.kind, t.key = c.identity(i)
	}
	return n, nil
}

func newNotifier(senders []sender, log *slog.Logger) *Notifier {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	n := &Notifier{log: log, run: hex.EncodeToString(id[:]), repeats: repeats{seen: map[eventKey]*told{}}, wake: make(chan struct{}, 1)}
	for _, s := range senders {
		n.targets = append(n.targets, &target{sender: s, wake: make(chan struct{}, 1)})
	}
	return n
}

// Notify hands an event to all targets. It never blocks; before Run events
// wait, after it they go nowhere.
func (n *Notifier) Notify(e Event) {
	now := time.Now()
	if e.Time.IsZero() {
		e.Time = now
	}
	e = e.tidy()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = max(n.last, e.Position)
	if repeated, ok := n.repeats.fresh(e, now); ok {
		n.enqueue(e, repeated)
	}
	poke(n.wake)
}

// enqueue wants the lock.
func (n *Notifier) enqueue(e Event, repeated int) {
	d := n.delivery(e, repeated)
	for _, t := range n.targets {
		if d.State == Plain && rank(d.Severity) < t.least || d.position != 0 && d.position <= t.from {
			continue
		}
		t.queue.add(d)
		poke(t.wake)
	}
}

// delivery makes one of e. It wants the lock.
func (n *Notifier) delivery(e Event, repeated int) Delivery {
	if e.ID == "" {
		n.number++
		e.ID = fmt.Sprintf("%s-%d", n.run, n.number)
	}
	return newDelivery(e.ID, e, repeated)
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, and returns when nothing of it is left. It is
// called once.
func (n *Notifier) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for _, t := range n.targets {
		workers.Go(func() { n.deliver(ctx, t) })
	}
	for n.wait(ctx) {
		n.mu.Lock()
		for _, t := range n.repeats.due(time.Now()) {
			n.summarize(t)
		}
		n.mu.Unlock()
	}
	workers.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.targets {
		if lost := len(t.queue.items) + t.queue.dropped; lost > 0 {
			n.log.Warn("notifications were not delivered; the next agent tries again", "target", t.name(), "count", lost)
		}
	}
}

// summarize tells the last event of a window. It wants the lock.
func (n *Notifier) summarize(t told) {
	// The event that is told is not one of those it stands for.
	n.enqueue(t.last, t.repeated-1)
}

// wait returns when a window may be over, and whether ctx has not ended.
func (n *Notifier) wait(ctx context.Context) bool {
	n.mu.Lock()
	next := n.repeats.next()
	n.mu.Unlock()
	var over <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-n.wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
