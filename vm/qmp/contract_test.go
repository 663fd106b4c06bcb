package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/vm/qmp"
)

// The tests of this file hold for the fake and for QEMU.

func TestRunStates(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		c := dial(t, start(t).path)
		events, cancel := c.Events()
		defer cancel()

		if v := c.Version(); v.QEMU.Major < 7 || !c.OOB() {
			t.Errorf("greeting: version %v, oob %v", v, c.OOB())
		}
		asked, err := qmp.QueryVersion(ctx, c)
		check(t, err)
		if asked.String() != c.Version().String() {
			t.Errorf("version is %v, by greeting %v", asked, c.Version())
		}
		want := func(state string, running bool) {
			t.Helper()
			s, err := qmp.QueryStatus(ctx, c)
			check(t, err)
			if s.Status != state || s.Running != running {
				t.Errorf("status is %+v, want %s", s, state)
			}
		}
		event := func(name string) qmp.Event {
			t.Helper()
			e, err := qmp.WaitEvent(ctx, events, qmp.Named(name))
			check(t, err)
			if age := time.Since(e.Time); age < -time.Minute || age > time.Minute {
				t.Errorf("%s has time %v", name, e.Time)
			}
			return e
		}
		want(qmp.StatePrelaunch, false)
		check(t, qmp.Cont(ctx, c))
		event("RESUME")
		want(qmp.StateRunning, true)
		check(t, qmp.Stop(ctx, c))
		event("STOP")
		want(qmp.StatePaused, false)
		check(t, qmp.Stop(ctx, c)) // again is no error
		check(t, qmp.Cont(ctx, c))
		check(t, qmp.AnnounceSelf(ctx, c))
		check(t, qmp.SystemPowerdown(ctx, c))
		event("POWERDOWN")
		check(t, qmp.SystemReset(ctx, c))
		var reset struct{ Guest *bool }
		check(t, event("RESET").Decode(&reset))
		if reset.Guest == nil || *reset.Guest {
			t.Errorf("RESET has data %+v", reset)
		}

		check(t, qmp.Quit(ctx, c))
		event("SHUTDOWN")
		<-c.Done()
		wantError(t, c.Err(), qmp.ErrClosed)
		if _, open := <-events; open {
			for range events { // RESET and so on, to the end
			}
		}
		wantError(t, qmp.Stop(ctx, c), qmp.ErrClosed, qmp.ErrNotSent)
	})
}

func TestRefusedCommandsHaveTheirClass(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		c := dial(t, start(t).path)
		for range 2 { // the connection goes on
			err := c.Execute(background(t), "no-such-command", nil, nil)
			var refused *qmp.Error
			if !errors.As(err, &refused) || refused.Class != qmp.ClassCommandNotFound ||
				refused.Command != "no-such-command" || refused.Description == "" {
				t.Fatalf("error is %#v", err)
			}
			if !qmp.HasClass(err, qmp.ClassCommandNotFound) || errors.Is(err, qmp.ErrClosed) {
				t.Fatalf("class of %v", err)
			}
		}
		err := qmp.RemoveSavedFD(background(t), c, 12345)
		if !qmp.HasClass(err, qmp.ClassGeneric) {
			t.Fatalf("error is %#v", err)
		}
	})
}

func TestLargeRepliesAndConcurrentCalls(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		c := dial(t, start(t).path)
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				for range 20 {
					var v struct{ QEMU struct{ Major int } }
					err := c.Execute(ctx, "query-version", nil, &v)
					if err != nil || v.QEMU.Major != c.Version().QEMU.Major {
						t.Errorf("version %+v, %v", v, err)
						return
					}
					var s qmp.Status
					if s, err = qmp.QueryStatus(ctx, c); err != nil || s.Status == "" {
						t.Errorf("status %+v, %v", s, err)
						return
					}
				}
			})
		}
		var raw json.RawMessage
		check(t, c.Execute(ctx, "query-qmp-schema", nil, &raw))
		if len(raw) < 150_000 || !json.Valid(raw) {
			t.Errorf("schema of %d bytes", len(raw))
		}
		wait.Wait()
	})
}

func TestFeatures(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		f, err := qmp.QueryFeatures(background(t), dial(t, start(t).path))
		check(t, err)
		if missing := f.Missing(); len(missing) != 0 {
			t.Errorf("missing: %s", strings.Join(missing, ", "))
		}
	})
}

// A QEMU that does not answer costs a caller its deadline, no more; what it
// answers later confuses nobody.
func TestDeadlines(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		q := start(t)
		c := dial(t, q.path)
		ctx := background(t)
		q.freeze()
		began := time.Now()
		bound := 50 * time.Millisecond
		err := c.Execute(within(t, bound), "query-version", nil, nil)
		for errors.Is(err, qmp.ErrNotSent) && bound < 5*time.Second { // the time was up before it could leave
			bound *= 2
			err = c.Execute(within(t, bound), "query-version", nil, nil)
		}
		wantError(t, err, context.DeadlineExceeded)
		if errors.Is(err, qmp.ErrNotSent) || !strings.Contains(err.Error(), "query-version") {
			t.Errorf("error of the command QEMU has: %v", err)
		}
		// The next one never leaves.
		err = qmp.Cont(within(t, 50*time.Millisecond), c)
		wantError(t, err, context.DeadlineExceeded, qmp.ErrNotSent)
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		wantError(t, qmp.Cont(canceled, c), context.Canceled, qmp.ErrNotSent)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("deadlines of 50 ms took %v", took)
		}
		q.thaw()
		for range 3 {
			s, err := qmp.QueryStatus(ctx, c)
			check(t, err)
			if s.Status != qmp.StatePrelaunch {
				t.Fatalf("status is %+v: a reply was mixed up, or a given up command was carried out", s)
			}
		}
	})
}

func TestDeathWakesEveryone(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		q := start(t)
		c := dial(t, q.path)
		events, _ := c.Events()
		q.freeze()
		results := make(chan error, 4)
		for range 4 {
			go func() { results <- c.Execute(context.Background(), "query-version", nil, nil) }()
		}
		q.kill()
		for range 4 {
			wantError(t, <-results, qmp.ErrClosed)
		}
		<-c.Done()
		_, err := qmp.WaitEvent(background(t), events, qmp.Named("STOP"))
		wantError(t, err, qmp.ErrClosed)
		_, err = qmp.Dial(background(t), q.path, nil)
		if err == nil {
			t.Error("connected to a dead QEMU")
		}
	})
}

// The next client gets its turn, and only then, and sees nothing of the last one.
func TestOneClientAtATime(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		q := start(t)
		first := dial(t, q.path)
		_, err := qmp.Dial(within(t, 100*time.Millisecond), q.path, nil)
		wantError(t, err, context.DeadlineExceeded)

		q.freeze() // the reply to this one will be the next client's
		err = first.Execute(within(t, 20*time.Millisecond), "query-qmp-schema", nil, nil)
		wantError(t, err, context.DeadlineExceeded)
		check(t, first.Close())
		q.thaw()
		second := dial(t, q.path)
		s, err := qmp.QueryStatus(background(t), second)
		check(t, err)
		if s.Status != qmp.StatePrelaunch {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestPassedFiles(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		q := start(t)
		c := dial(t, q.path)
		before := q.files()
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes lost files
		f, err := os.CreateTemp(t.TempDir(), "")
		check(t, err)
		type name struct {
			Name string `json:"fdname"`
		}
		var wait sync.WaitGroup
		for _, n := range []string{"a", "b", "c", "d"} { // none gets lost or mixed up
			wait.Go(func() {
				if err := c.ExecuteWithFile(ctx, "getfd", name{n}, nil, f); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		check(t, f.Close())
		if now := q.files(); now != before+4 {
			t.Errorf("%d files open after passing 4, %d before", now, before)
		}
		for _, n := range []string{"a", "b", "c", "d"} {
			check(t, c.Execute(ctx, "closefd", name{n}, nil))
		}
		if now := q.files(); now != before {
			t.Errorf("%d files open at the end, %d before", now, before)
		}
		waitFor(t, "end of our own handles", func() bool { return ownHandles(t, f.Name()) == 0 })
		wantError(t, c.ExecuteWithFile(ctx, "getfd", name{"x"}, nil, f), qmp.ErrNotSent)
		err = c.Execute(ctx, "getfd", name{"x"}, nil)
		if !qmp.HasClass(err, qmp.ClassGeneric) {
			t.Errorf("getfd without a file: %v", err)
		}
	})
}

// ownHandles counts this process's handles on a file.
func ownHandles(t *testing.T, path string) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	n := 0
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}
