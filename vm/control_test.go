package vm

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/vm/guard"
)

// scripted is a monitor and guard whose QEMU does what a test says, in the
// time of a synctest bubble.
type scripted struct {
	mu       sync.Mutex
	commands []string
	state    RunState
	hung     bool // the monitor does not answer
	deaf     bool // the guest ignores the power button
	stuck    bool // the guard does not answer
	events   chan QEMUEvent
	gone     chan struct{}
	record   *guard.ExitRecord
}

func newScripted(t *testing.T) (*scripted, *Guest) {
	t.Helper()
	s := &scripted{state: StateRunning, events: make(chan QEMUEvent, 100), gone: make(chan struct{})}
	p := Platform{Log: slog.New(slog.DiscardHandler)}
	g, err := newGuest(t.Context(), p, Spec{Name: "a"}, Layout{}, s, s)
	if err != nil {
		t.Fatal(err)
	}
	return s, g
}

func (s *scripted) Execute(ctx context.Context, command string, _, reply any) error {
	s.mu.Lock()
	hung := s.hung
	s.commands = append(s.commands, command)
	s.mu.Unlock()
	if hung {
		<-ctx.Done()
		return ctx.Err()
	}
	switch command {
	case "query-status":
		data, _ := json.Marshal(map[string]RunState{"status": s.state})
		return json.Unmarshal(data, reply)
	case "system_powerdown":
		if !s.deaf {
			s.events <- QEMUEvent{Name: "SHUTDOWN", Data: json.RawMessage(`{"guest":true,"reason":"guest-shutdown"}`)}
			s.end(guard.ExitRecord{Reason: guard.ReasonExited})
		}
	}
	return nil
}

func (s *scripted) end(record guard.ExitRecord) {
	s.record = &record
	close(s.events)
	close(s.gone)
}

func (s *scripted) Events() (<-chan QEMUEvent, func()) { return s.events, func() {} }
func (s *scripted) Close() error                       { return nil }
func (s *scripted) Gone() <-chan struct{}              { return s.gone }
func (s *scripted) Record() *guard.ExitRecord          { return s.record }

func (s *scripted) Kill(ctx context.Context) error {
	if s.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	s.end(guard.ExitRecord{Reason: guard.ReasonKilled, Code: -1, Signal: 9})
	return nil
}

func (s *scripted) Terminate(ctx context.Context, _ time.Duration) error {
	if s.stuck {
		return errors.New("the guard does not answer")
	}
	s.end(guard.ExitRecord{Reason: guard.ReasonTerminated})
	return nil
}

func (s *scripted) KillNow() error {
	s.end(guard.ExitRecord{Reason: guard.ReasonExited, Code: -1, Signal: 9})
	return nil
}

func TestShutdownIsBounded(t *testing.T) {
	tests := map[string]struct {
		set  func(*scripted)
		want Ended
		most time.Duration
	}{
		"obedient guest":       {func(*scripted) {}, EndedByGuest, time.Second},
		"deaf guest":           {func(s *scripted) { s.deaf = true }, EndedByQuit, 30 * time.Second},
		"hung monitor":         {func(s *scripted) { s.hung = true }, EndedByQuit, 30 * time.Second},
		"panicked guest":       {func(s *scripted) { s.state = StatePanicked }, EndedByQuit, time.Second},
		"everything is broken": {func(s *scripted) { s.hung, s.stuck = true, true }, EndedByKill, 30*time.Second + guardAnswer},
	}
	for name, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			s, g := newScripted(t)
			test.set(s)
			begin := time.Now()
			how, err := g.Shutdown(t.Context(), 30*time.Second)
			if err != nil || how != test.want {
				t.Errorf("%s: %v, %v; want %s", name, how, err, test.want)
			}
			if took := time.Since(begin); took > test.most {
				t.Errorf("%s: took %v", name, took)
			}
			if exit := g.Exit(); exit.Reason != ExitStopped {
				t.Errorf("%s: exit %v", name, exit)
			}
			g.Close()
		})
	}
}

func TestShutdownPressesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		s.deaf = true
		if _, err := g.Shutdown(t.Context(), 12*time.Second); err != nil {
			t.Fatal(err)
		}
		presses := 0
		for _, command := range s.commands {
			if command == "system_powerdown" {
				presses++
			}
		}
		if presses != 3 {
			t.Errorf("%d presses in 12 s: %v", presses, s.commands)
		}
		g.Close()
	})
}

func TestShutdownGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		s.deaf = true
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if how, err := g.Shutdown(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || how != "" {
			t.Errorf("%v, %v", how, err)
		}
		select {
		case <-s.gone:
			t.Error("the guest was ended all the same")
		default:
		}
		g.Close()
	})
}

func TestShortPausesAreNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		events, cancel := g.Events()
		defer cancel()
		for range 20 { // checkpoints
			s.events <- QEMUEvent{Name: "STOP"}
			time.Sleep(settle / 2)
			s.events <- QEMUEvent{Name: "RESUME"}
			time.Sleep(settle / 2)
		}
		synctest.Wait()
		if len(events) != 0 {
			t.Errorf("a checkpoint was reported: %+v", <-events)
		}
		s.events <- QEMUEvent{Name: "STOP"}
		time.Sleep(2 * settle)
		if e := <-events; e.Kind != EventRunState || e.State != StatePaused {
			t.Errorf("event %+v", e)
		}
		for range 20 { // it goes on, under checkpoints
			s.events <- QEMUEvent{Name: "RESUME"}
			time.Sleep(settle / 2)
			s.events <- QEMUEvent{Name: "STOP"}
			time.Sleep(settle / 10)
		}
		s.events <- QEMUEvent{Name: "RESUME"}
		synctest.Wait()
		if len(events) != 1 {
			t.Fatalf("%d events tell that the guest goes on", len(events))
		}
		if e := <-events; e.Kind != EventRunState || e.State != StateRunning {
			t.Errorf("event %+v", e)
		}
		g.Close()
	})
}

func TestMonitorLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		events, cancel := g.Events()
		defer cancel()
		close(s.events)
		time.Sleep(2 * lastWords)
		if e := <-events; e.Kind != EventMonitorLost || e.State != StateRunning {
			t.Errorf("event %+v", e)
		}
		g.Close()
		g.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		events, cancel := g.Events()
		defer cancel()
		close(s.events)
		time.Sleep(lastWords / 2)
		s.record = &guard.ExitRecord{Reason: guard.ReasonExited, Signal: 11}
		close(s.gone)
		if e := <-events; e.Kind != EventExited || e.Exit.Reason != ExitCrashed {
			t.Errorf("event %+v", e)
		}
		g.Close()
	})
}

func TestExclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := newScripted(t)
		paused := make(chan error, 1)
		err := g.Exclusive(t.Context(), func(context.Context) error {
			go func() { paused <- g.Pause(t.Context()) }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := g.Unpause(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a second operation did not wait: %v", err)
			}
			if n := len(s.commands); n != 1 { // the query at the start
				t.Errorf("commands while a checkpoint was taken: %v", s.commands)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-paused; err != nil {
			t.Error(err)
		}
		if err := g.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		if err := g.Exclusive(t.Context(), nil); !errors.Is(err, ErrStopped) {
			t.Errorf("an operation on a stopped guest: %v", err)
		}
		g.Close()
	})
}
