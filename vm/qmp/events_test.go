package qmp_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"

	"vmctl/vm/qmp"
	"vmctl/vm/qmp/qmptest"
)

type number struct{ N int }

// flood lets the fake send n events and answer after them.
func flood(s *qmptest.Server, n int, padding string) {
	s.Handle("flood", func(call *qmptest.Call) (any, error) {
		for i := range n {
			call.Emit("TICK", map[string]any{"n": i, "padding": padding})
		}
		return nil, nil
	})
}

// A subscriber that never reads costs nobody else anything, and learns what it
// missed.
func TestUnreadSubscriber(t *testing.T) {
	for name, test := range map[string]struct {
		events  int
		padding string
	}{
		"many":  {17_000, ""},
		"large": {90, strings.Repeat("x", 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t)
			flood(s, test.events, test.padding)
			c := dial(t, s.Path())
			lazy, cancelLazy := c.Events()
			defer cancelLazy()
			keen, cancelKeen := c.Events()
			var keenSaw int
			var wait sync.WaitGroup
			wait.Go(func() {
				for e := range keen {
					if e.Name == qmp.EventsDropped { // on a slow machine
						keenSaw += e.Dropped
						continue
					}
					var n number
					if err := e.Decode(&n); err != nil || n.N != keenSaw {
						t.Errorf("event %d came as number %d, %v", n.N, keenSaw, err)
						return
					}
					keenSaw++
					if keenSaw == test.events {
						return
					}
				}
			})
			check(t, c.Execute(background(t), "flood", nil, nil))
			wait.Wait()
			cancelKeen()
			cancelKeen()
			if keenSaw != test.events {
				t.Errorf("the reading subscriber saw %d of %d events", keenSaw, test.events)
			}

			dropped, seen := 0, 0
			for seen+dropped < test.events {
				e := <-lazy
				if e.Name == qmp.EventsDropped {
					dropped += e.Dropped
					continue
				}
				var n number
				check(t, e.Decode(&n))
				if n.N != seen+dropped {
					t.Fatalf("event %d after %d seen and %d reported lost", n.N, seen, dropped)
				}
				seen++
			}
			if dropped == 0 || seen == 0 {
				t.Errorf("%d seen, %d dropped: the queue has no bound", seen, dropped)
			}
		})
	}
}

func TestWaitEvent(t *testing.T) {
	s := script(t)
	flood(s, 17_000, "")
	c := dial(t, s.Path())
	events, cancel := c.Events()
	ctx := background(t)
	s.Emit("A", nil)
	s.Emit("B", nil)
	e, err := qmp.WaitEvent(ctx, events, qmp.Named("B"))
	check(t, err)
	if e.Name != "B" || e.Data != nil {
		t.Errorf("event is %+v", e)
	}
	canceled, stop := context.WithCancel(ctx)
	stop()
	_, err = qmp.WaitEvent(canceled, events, qmp.Named("C"))
	wantError(t, err, context.Canceled)
	// What may have been lost is not waited for in vain.
	check(t, c.Execute(ctx, "flood", nil, nil))
	_, err = qmp.WaitEvent(ctx, events, qmp.Named("C"))
	wantError(t, err, qmp.ErrEventsDropped)
	cancel()
	_, err = qmp.WaitEvent(ctx, events, qmp.Named("C"))
	wantError(t, err, qmp.ErrClosed)
}

// What QEMU said last can be read after its end; Close throws it away.
func TestEventsAtTheEnd(t *testing.T) {
	s := script(t)
	c := dial(t, s.Path())
	events, cancel := c.Events()
	defer cancel()
	unread, _ := c.Events()
	s.Emit("SHUTDOWN", nil)
	s.Kill()
	<-c.Done()
	if e := <-events; e.Name != "SHUTDOWN" {
		t.Errorf("event is %+v", e)
	}
	if e, open := <-events; open {
		t.Errorf("one more event: %+v", e)
	}
	late, cancelLate := c.Events()
	if e, open := <-late; open {
		t.Errorf("event after the end: %+v", e)
	}
	cancelLate()
	check(t, c.Close())
	if e, open := <-unread; open {
		t.Errorf("event after Close: %+v", e)
	}
}

func TestSubscribeAndCloseAtOnce(t *testing.T) {
	for range 50 {
		s := script(t)
		c := dial(t, s.Path())
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				ch, cancel := c.Events()
				s.Emit("A", nil)
				<-ch
				cancel()
			})
		}
		check(t, c.Close())
		wait.Wait()
	}
}

// go-qemu's generated API works through our transport.
func TestMonitor(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		c := dial(t, start(t).path)
		var m goqemu.Monitor = c.Monitor(10 * time.Second)
		check(t, m.Connect())
		ctx, cancel := context.WithCancel(background(t))
		defer cancel()
		events, err := m.Events(ctx)
		check(t, err)
		api := raw.NewMonitor(m)
		check(t, api.Cont())
		status, err := api.QueryStatus()
		check(t, err)
		if !status.Running {
			t.Errorf("status is %+v", status)
		}
		if e := <-events; e.Event != "RESUME" || e.Timestamp.Seconds == 0 {
			t.Errorf("event is %+v", e)
		}
		check(t, api.SystemReset())
		e := <-events
		for e.Event != "RESET" {
			e = <-events
		}
		if guest, ok := e.Data["guest"].(bool); !ok || guest {
			t.Errorf("data is %v", e.Data)
		}
		out, err := m.Run([]byte(`{"exec-oob": "yank", "arguments": {"instances": []}}`))
		check(t, err)
		if string(out) != `{"return":{}}` || !json.Valid(out) {
			t.Errorf("Run returned %s", out)
		}
		_, err = m.Run([]byte(`{"execute": "nothing"}`))
		if !qmp.HasClass(err, qmp.ClassCommandNotFound) {
			t.Errorf("error is %v", err)
		}
		for _, bad := range []string{`{`, `{}`, `{"execute": "a", "exec-oob": "b"}`} {
			_, err = m.Run([]byte(bad))
			wantError(t, err, qmp.ErrNotSent)
		}
		cancel()
		for range events { // ends
		}
		check(t, m.Disconnect())
		wantError(t, m.Connect(), qmp.ErrClosed)
		_, err = m.Events(background(t))
		wantError(t, err, qmp.ErrClosed)
	})
}
