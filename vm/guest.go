package vm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// answer bounds a command that QEMU answers at once unless it hangs.
	answer = 10 * time.Second
	// guardAnswer is how long the guard may take to kill QEMU.
	guardAnswer = 5 * time.Second
	// killWait is how long a killed QEMU may take to be gone.
	killWait = 15 * time.Second
	// lastWords is how long events may lag behind the end of QEMU, and the end
	// of QEMU behind the loss of its monitor.
	lastWords = 2 * time.Second
)

// Guest is one running guest. All methods may be called concurrently. Close
// lets go of it, the guest runs on.
type Guest struct {
	spec    Spec
	layout  Layout
	log     *slog.Logger
	monitor Monitor
	guard   Guard

	feed      feed
	exclusive chan struct{} // holds a token while nobody changes the run state
	requested chan struct{} // closed once somebody here asked for the end
	asked     chan struct{} // one token: the right to close requested
	closing   chan struct{}
	closeOnce chan struct{} // one token: the right to close closing
	finished  chan struct{} // the watching goroutine has returned
	done      chan struct{} // QEMU is gone, exit is set
	exit      Exit
}

func newGuest(ctx context.Context, p Platform, s Spec, l Layout, warden Guard, monitor Monitor) (*Guest, error) {
	g := &Guest{
		spec: s, layout: l, log: p.Log.With("vm", s.Name), monitor: monitor, guard: warden,
		exclusive: token(), requested: make(chan struct{}), asked: token(),
		closing: make(chan struct{}), closeOnce: token(), finished: make(chan struct{}), done: make(chan struct{}),
	}
	// Events first, so that no change after the state was read is missed.
	events, cancel := monitor.Events()
	state, err := g.query(ctx)
	if err != nil {
		cancel()
		err = errors.Join(err, monitor.Close())
		select {
		case <-warden.Gone():
			return nil, &endedError{ending{}.exit(warden.Record())}
		default:
			return nil, err
		}
	}
	w := watcher{guest: g, events: events, tracker: tracker{state: state, reported: state}}
	w.tracker.ending.panicked = state == StatePanicked
	w.tracker.ioError = state == StateIOError
	go func() {
		defer close(g.finished)
		defer g.feed.close()
		defer cancel()
		w.run()
	}()
	return g, nil
}

func token() chan struct{} {
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	return ch
}

// Spec is what the guest was started with.
func (g *Guest) Spec() Spec { return g.spec }

// Layout is where its files are.
func (g *Guest) Layout() Layout { return g.layout }

// Monitor is the connection to QEMU, for what this package does not do.
func (g *Guest) Monitor() Monitor { return g.monitor }

// Events delivers what happens from now on. The channel is closed after the
// guest's end, after Close, and by cancel. A slow reader misses the oldest.
func (g *Guest) Events() (events <-chan Event, cancel func()) { return g.feed.subscribe() }

// Done is closed when QEMU is gone.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Exit is how the guest ended. Valid after Done.
func (g *Guest) Exit() Exit {
	<-g.done
	return g.exit
}

// Close lets go of the guest and waits for its goroutine. The guest runs on.
func (g *Guest) Close() error {
	select {
	case <-g.closeOnce:
		close(g.closing)
	default:
		<-g.finished
		return nil
	}
	<-g.finished
	return g.monitor.Close()
}

// Exclusive runs f while nobody else pauses, unpauses, resets or checkpoints
// the guest. It waits for its turn until ctx ends. f must not call methods of
// the guest that change its run state.
func (g *Guest) Exclusive(ctx context.Context, f func(context.Context) error) error {
	select {
	case <-g.exclusive:
	case <-ctx.Done():
		return fmt.Errorf("wait for another operation on guest %q: %w", g.spec.Name, ctx.Err())
	case <-g.done:
		return g.gone()
	}
	defer func() { g.exclusive <- struct{}{} }()
	if g.isGone() {
		return g.gone()
	}
	err := f(ctx)
	if err != nil && g.isGone() {
		return errors.Join(g.gone(), err)
	}
	return err
}

func (g *Guest) isGone() bool {
	select {
	case <-g.guard.Gone():
		return true
	default:
		return false
	}
}

func (g *Guest) gone() error { return fmt.Errorf("guest %q: %w", g.spec.Name, ErrStopped) }

// markRequested notes that the guest's end is wanted, so that it is not taken
// for a failure.
func (g *Guest) markRequested() {
	select {
	case <-g.asked:
		close(g.requested)
	default:
	}
}
