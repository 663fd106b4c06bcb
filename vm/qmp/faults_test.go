package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/qmp"
	"vmctl/vm/qmp/qmptest"
)

// The tests of this file need a QEMU that misbehaves, so only the fake has them.

func script(t *testing.T) *qmptest.Server {
	t.Helper()
	t.Cleanup(func() { noGoroutines(t) })
	return qmptest.Start(t)
}

func TestDialFailures(t *testing.T) {
	dir := t.TempDir()
	_, err := qmp.Dial(background(t), filepath.Join(dir, "none"), nil)
	wantError(t, err, os.ErrNotExist)

	stale := qmptest.Start(t)
	stale.Kill()
	_, err = qmp.Dial(background(t), stale.Path(), nil)
	wantError(t, err, syscall.ECONNREFUSED)

	for name, test := range map[string]struct {
		greeting string
		want     error
	}{
		"text":           {"220 mail.example.com ESMTP", qmp.ErrNotQMP},
		"other JSON":     {`{"hello": "world"}`, qmp.ErrNotQMP},
		"number":         {`42`, qmp.ErrNotQMP},
		"wrong type":     {`{"QMP": "yes"}`, qmp.ErrNotQMP},
		"stray for ever": {strings.Repeat(`{"return": {}, "id": 7}`, 2000), qmp.ErrNotQMP},
		"silence":        {"", context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			s := qmptest.New(t)
			s.Greeting = test.greeting
			s.Listen(t)
			_, err := qmp.Dial(within(t, 200*time.Millisecond), s.Path(), nil)
			wantError(t, err, test.want)
			noGoroutines(t)
		})
	}
	t.Run("hangs up", func(t *testing.T) {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("qmp-%d", os.Getpid()))
		l, err := net.Listen("unix", path)
		check(t, err)
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				_ = conn.Close()
			}
		}()
		_, err = qmp.Dial(background(t), path, nil)
		wantError(t, err, qmp.ErrClosed)
	})
}

// An earlier client's reply and events may come before the greeting.
func TestDialSkipsWhatAnEarlierClientLeft(t *testing.T) {
	s := qmptest.New(t)
	s.Greeting = `{"return": {"status": "wrong"}, "id": "1"}` + "\r\n" + `{"event": "STOP"}` +
		qmptest.Greeting72 + `{"error": {"class": "GenericError", "desc": "x"}, "id": "0"}`
	s.Listen(t)
	s.Return("query-status", map[string]any{"status": "running", "running": true})
	status, err := qmp.QueryStatus(background(t), dial(t, s.Path()))
	check(t, err)
	if !status.Running {
		t.Errorf("status is %+v", status)
	}
}

func TestWithoutOOB(t *testing.T) {
	s := qmptest.New(t)
	s.Greeting = strings.Replace(qmptest.Greeting72, `["oob"]`, `[{"future": 1}]`, 1)
	s.Listen(t)
	c := dial(t, s.Path())
	wantError(t, qmp.Yank(background(t), c, "t0"), qmp.ErrNoOOB, qmp.ErrNotSent)
	if len(s.Calls("yank")) != 0 {
		t.Error("yank was sent")
	}
}

// A command that hangs holds the others back; the out-of-band one passes, and frees it.
func TestOOBPassesAHangingCommand(t *testing.T) {
	s := script(t)
	yanked := make(chan struct{})
	s.Handle("stop", func(call *qmptest.Call) (any, error) {
		select {
		case <-yanked:
		case <-call.Done():
		}
		return nil, nil
	})
	s.Return("query-version", map[string]any{})
	s.Handle("yank", func(call *qmptest.Call) (any, error) {
		if !call.OOB {
			t.Error("yank came in band")
		}
		var args struct {
			Instances []struct {
				Type string `json:"type"`
				Node string `json:"node-name"`
			} `json:"instances"`
		}
		if err := call.Decode(&args); err != nil || len(args.Instances) != 2 ||
			args.Instances[1].Node != "t1" || args.Instances[1].Type != "block-node" {
			t.Errorf("yank has %+v, %v", args, err)
		}
		close(yanked)
		return nil, nil
	})
	ctx := background(t)
	c := dial(t, s.Path())
	stopped := make(chan error, 1)
	go func() { stopped <- qmp.Stop(ctx, c) }()
	waitFor(t, "stop", func() bool { return len(s.Calls("stop")) == 1 })
	for range 20 { // more than QEMU reads ahead
		wantError(t, c.Execute(within(t, time.Millisecond), "query-version", nil, nil), qmp.ErrNotSent)
	}
	check(t, qmp.Yank(ctx, c, "t0", "t1"))
	check(t, <-stopped)
	if n := len(s.Calls("query-version")); n != 0 {
		t.Errorf("%d commands that were given up were carried out", n)
	}
}

func TestHugeReplyAndExactNumbers(t *testing.T) {
	s := script(t)
	const big = 4 << 20
	s.Return("huge", strings.Repeat("x", big))
	s.Return("numbers", json.RawMessage(`{"a": 9007199254740993, "b": 18446744073709551615, "c": 0.1000000000000000055}`))
	c := dial(t, s.Path())
	ctx := background(t)
	var text string
	check(t, c.Execute(ctx, "huge", nil, &text))
	if len(text) != big {
		t.Errorf("%d bytes of %d", len(text), big)
	}
	var loose map[string]any
	check(t, c.Execute(ctx, "numbers", nil, &loose))
	if got := fmt.Sprintf("%v %v %v", loose["a"], loose["b"], loose["c"]); got != "9007199254740993 18446744073709551615 0.1000000000000000055" {
		t.Errorf("numbers are %s", got)
	}
	var wrong struct{ A string }
	if err := c.Execute(ctx, "numbers", nil, &wrong); err == nil || errors.Is(err, qmp.ErrClosed) {
		t.Errorf("a reply of another form: %v", err)
	}
	check(t, c.Execute(ctx, "numbers", nil, nil))
	wantError(t, c.Execute(ctx, "numbers", make(chan int), nil), qmp.ErrNotSent)
	check(t, c.Execute(ctx, "numbers", nil, nil)) // the turn was given back
}

func TestNotQMPAnyMore(t *testing.T) {
	for name, garbage := range map[string]string{
		"text":              "Segmentation fault\n",
		"array":             "[1]",
		"wrong type":        `{"event": {}}`,
		"error without id":  `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`,
		"return without id": `{"return": {}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t)
			s.Handle("stop", func(*qmptest.Call) (any, error) {
				s.Send([]byte(garbage))
				return nil, qmptest.ErrNoReply
			})
			c := dial(t, s.Path())
			wantError(t, qmp.Stop(background(t), c), qmp.ErrClosed, qmp.ErrProtocol)
			wantError(t, c.Err(), qmp.ErrClosed, qmp.ErrProtocol)
		})
	}
	t.Run("strange but harmless", func(t *testing.T) {
		s := script(t)
		s.Return("stop", nil)
		c := dial(t, s.Path())
		s.Send([]byte(`{"future": 1} {"return": {}, "id": 3} {"return": {}, "id": "nobody"} {"error": {}, "id": null}`))
		check(t, qmp.Stop(background(t), c))
	})
	t.Run("half a reply", func(t *testing.T) {
		s := script(t)
		s.Handle("stop", func(call *qmptest.Call) (any, error) {
			s.Send([]byte(`{"return": {"x`))
			s.Hangup()
			return nil, qmptest.ErrNoReply
		})
		wantError(t, qmp.Stop(background(t), dial(t, s.Path())), qmp.ErrClosed)
	})
}

// Close ends calls that wait, in whatever place.
func TestCloseWakesCalls(t *testing.T) {
	s := script(t)
	s.Handle("stop", func(call *qmptest.Call) (any, error) {
		<-call.Done()
		return nil, nil
	})
	c := dial(t, s.Path())
	results := make(chan error, 3)
	for range 3 { // one at QEMU, two in line
		go func() { results <- qmp.Stop(context.Background(), c) }()
	}
	waitFor(t, "stop", func() bool { return len(s.Calls("stop")) == 1 })
	check(t, c.Close())
	check(t, c.Close())
	for range 3 {
		wantError(t, <-results, qmp.ErrClosed)
	}
	wantError(t, c.Err(), qmp.ErrClosed)
}

// A QEMU that does not read blocks neither the caller nor Close, however large
// the command.
func TestBlockedWriter(t *testing.T) {
	s := script(t)
	c := dial(t, s.Path())
	s.Freeze()
	large := map[string]string{"x": strings.Repeat("x", 1<<20)}
	err := c.Execute(within(t, 500*time.Millisecond), "stop", large, nil)
	wantError(t, err, context.DeadlineExceeded)
	if errors.Is(err, qmp.ErrNotSent) {
		t.Fatal("the machine is too slow for this test")
	}
	wantError(t, c.ExecuteOOB(within(t, 20*time.Millisecond), "yank", nil, nil), qmp.ErrNotSent)
	check(t, c.Close())
}
