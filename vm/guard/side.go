package guard

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// side is everything that may wait: signals, the log, QMP. Its goroutines never
// touch the loop's state; they leave news and wake the loop through an eventfd.
type side struct {
	event  int
	log    *slog.Logger
	notes  chan note
	asks   chan struct{}
	stop   context.CancelFunc
	closed sync.WaitGroup

	terminate atomic.Bool
	resumed   atomic.Bool
}

// sideBound is how long the end of a guard waits for them.
const sideBound = 2 * time.Second

type note struct {
	level   slog.Level
	message string
	value   int64
}

func newSide(log *slog.Logger) (*side, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &side{event: fd, log: log, notes: make(chan note, 64), asks: make(chan struct{}, 1)}, nil
}

// start runs the goroutines until close.
func (s *side) start(ctx context.Context, qmpSocket string) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.closed.Go(func() { s.signals(ctx, inner) })
	s.closed.Go(func() { s.write(inner) })
	s.closed.Go(func() { s.resumer(inner, qmpSocket) })
}

// close waits for the goroutines, but not for ever: one may be stuck in a write to
// the log, and the process is about to end in any case.
func (s *side) close() {
	s.stop()
	done := make(chan struct{})
	go func() { s.closed.Wait(); close(done) }()
	select {
	case <-done:
		_ = unix.Close(s.event)
	case <-time.After(sideBound):
	}
}

// signals turns a request to end (signal or context) into news for the loop.
func (s *side) signals(outer, inner context.Context) {
	ch := make(chan os.Signal, 4)
	// SIGHUP is taken and dropped; ignoring it would be inherited by QEMU.
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(ch)
	end := outer.Done()
	for {
		select {
		case <-inner.Done():
			return
		case <-end:
			end = nil
		case sig := <-ch:
			if sig == syscall.SIGHUP {
				continue
			}
		}
		s.terminate.Store(true)
		s.wake()
	}
}

// write empties the queue before it ends.
func (s *side) write(ctx context.Context) {
	for {
		select {
		case n := <-s.notes:
			s.log.Log(ctx, n.level, n.message, "value", n.value)
			continue
		default:
		}
		select {
		case n := <-s.notes:
			s.log.Log(ctx, n.level, n.message, "value", n.value)
		case <-ctx.Done():
			return
		}
	}
}

// note logs without waiting: with a full queue (a log on a dead disk) it is lost.
func (s *side) note(level slog.Level, message string, value int64) {
	select {
	case s.notes <- note{level, message, value}:
	default:
	}
}

// askResume never waits: the loop asks again only after it was told of the end.
func (s *side) askResume() { s.asks <- struct{}{} }

func (s *side) resumer(ctx context.Context, socket string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.asks:
		}
		if err := resumeGuest(ctx, socket); err != nil {
			s.log.Error("let the guest continue after a pause", "error", err)
		}
		s.resumed.Store(true)
		s.wake()
	}
}

// news is called by the loop. resumed: the `cont` that was asked for has been
// answered, none is on its way any more.
func (s *side) news() (terminate, resumed bool) {
	var count [8]byte
	_, _ = unix.Read(s.event, count[:])
	return s.terminate.Swap(false), s.resumed.Swap(false)
}

func (s *side) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(s.event, one[:])
}

// within runs f, which may hang on a dead disk, and gives up waiting after the
// bound. The goroutine ends with the process, which is about to end.
func within[T any](bound time.Duration, f func() T) (result T, ok bool) {
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case result = <-done:
		return result, true
	case <-time.After(bound):
		return result, false
	}
}
