package qga

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// agent is a scripted guest agent at the port's socket.
type agent struct {
	t      *testing.T
	socket string
	before string // what lies in the stream before the answer to a sync
	// answer gives the line to a command; empty: silence.
	answer func(command string, arguments map[string]any) string

	mu    sync.Mutex
	asked []string
}

func startAgent(t *testing.T, a *agent) *agent {
	t.Helper()
	a.t, a.socket = t, filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { a.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return a
}

func (a *agent) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var command struct {
			Execute   string
			Arguments map[string]any
		}
		text, delimited := bytes.CutPrefix(lines.Bytes(), []byte{syncByte})
		if err := json.Unmarshal(text, &command); err != nil {
			a.t.Errorf("the client sent %q: %v", lines.Bytes(), err)
			return
		}
		a.mu.Lock()
		a.asked = append(a.asked, command.Execute)
		a.mu.Unlock()
		if command.Execute == "guest-sync-delimited" && a.before != "silent" {
			if !delimited {
				a.t.Error("the sync does not clear the agent's parser")
			}
			fmt.Fprintf(conn, "%s\xff{\"return\": %.0f}\n", a.before, command.Arguments["id"])
		} else if a.answer != nil {
			fmt.Fprint(conn, a.answer(command.Execute, command.Arguments))
		}
	}
}

func ok(string, map[string]any) string { return "{\"return\": {}}\n" }

func TestTimes(t *testing.T) {
	clock := time.Unix(1700000000, 123456789)
	a := startAgent(t, &agent{answer: func(command string, arguments map[string]any) string {
		switch command {
		case "guest-get-time":
			return fmt.Sprintf("{\"return\": %d}\n", clock.UnixNano())
		case "guest-set-time":
			clock = time.Unix(0, int64(arguments["time"].(float64)))
		}
		return ok(command, arguments)
	}})
	c, err := Dial(t.Context(), a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := c.Time(t.Context()); err != nil || !got.Equal(clock) {
		t.Errorf("the clock is %v, %v", got, err)
	}
	later := time.Unix(1700001000, 0)
	if err := c.SetTime(t.Context(), later); err != nil || !clock.Equal(later) {
		t.Errorf("the clock was set to %v, %v", clock, err)
	}
}

// TestStaleStream: what lies in the stream is passed over, whatever it is.
func TestStaleStream(t *testing.T) {
	for name, before := range map[string]string{
		"an answer":             "{\"return\": 5}\n",
		"a former sync":         "\xff{\"return\": 5}\n",
		"a former sync, cut":    "\xff{\"retu",
		"an answer, cut":        "{\"return\": ",
		"delimiters":            "\xff\xff\xff",
		"a login prompt":        "\r\nDebian login: ",
		"a long answer":         strings.Repeat("x", 3*maxLine) + "\n",
		"a long line delimited": "\xff" + strings.Repeat("x", 3*maxLine) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, &agent{before: before, answer: ok})
			c, err := Dial(t.Context(), a.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailures: each way to fail ends, says what it is, and leaves a client
// that knows whether it can go on.
func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		want   error
		goesOn bool
	}{
		"silence":       {"", ErrSilent, false},
		"no answer":     {"{}\n", ErrProtocol, false},
		"no JSON":       {"login:\n", ErrProtocol, false},
		"null":          {"{\"return\": null}\n", ErrProtocol, false},
		"another kind":  {"{\"return\": \"noon\"}\n", ErrProtocol, false},
		"too long":      {strings.Repeat("x", 2*maxLine) + "\n", ErrProtocol, false},
		"empty lines":   {strings.Repeat("\r\n", maxLine), ErrProtocol, false},
		"an overflow":   {"{\"return\": 1e30}\n", ErrProtocol, false},
		"half a line":   {"{\"return\": 5", ErrSilent, false},
		"refused":       {"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n", nil, true},
		"refused oddly": {"{\"error\": {}}\n", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, &agent{answer: func(command string, arguments map[string]any) string {
				if command == "guest-ping" {
					return ok(command, arguments)
				}
				return test.answer
			}})
			c, err := Dial(t.Context(), a.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			bound := 30 * time.Second
			if test.want == ErrSilent {
				bound = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			_, err = c.Time(ctx)
			var refused *Error
			if test.goesOn != errors.As(err, &refused) || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			err = c.Ping(t.Context())
			if test.goesOn && err != nil || !test.goesOn && !errors.Is(err, ErrClosed) {
				t.Errorf("the next command: %v", err)
			}
		})
	}
}

// TestNobody: no agent, no socket, and a caller that gives up.
func TestNobody(t *testing.T) {
	a := startAgent(t, &agent{before: "silent"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, a.socket); !errors.Is(err, ErrSilent) {
		t.Errorf("an agent that is silent: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Dial(gone, a.socket); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gives up: %v", err)
	}
	if _, err := Dial(t.Context(), a.socket+"-not"); err == nil || errors.Is(err, ErrSilent) {
		t.Errorf("no socket: %v", err)
	}
}

// TestEndless: a guest that sends rubbish for ever is given up on.
func TestEndless(t *testing.T) {
	a := startAgent(t, &agent{before: "silent", answer: func(string, map[string]any) string {
		return strings.Repeat("\xffx\n", maxPassed/8)
	}})
	if _, err := Dial(t.Context(), a.socket); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

// TestOneAtATime: commands at once get their own answers.
func TestOneAtATime(t *testing.T) {
	var now int64
	a := startAgent(t, &agent{answer: func(command string, arguments map[string]any) string {
		if command == "guest-ping" {
			return ok(command, arguments)
		}
		now++
		return fmt.Sprintf("{\"return\": %d}\n", now)
	}})
	c, err := Dial(t.Context(), a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all sync.WaitGroup
	seen := make(chan int64, 100)
	for range 50 {
		all.Go(func() {
			if got, err := c.Time(t.Context()); err != nil {
				t.Error(err)
			} else {
				seen <- got.UnixNano()
			}
		})
		all.Go(func() {
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(seen)
	got := map[int64]bool{}
	for ns := range seen {
		got[ns] = true
	}
	if len(got) != 50 {
		t.Errorf("%d of 50 answers reached who had asked", len(got))
	}
}
