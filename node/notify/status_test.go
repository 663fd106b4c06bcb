package notify

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		f := &fake{answer: func(_ int, d Delivery) error {
			switch {
			case away:
				return errors.New("away")
			case d.Kind == "bad":
				return errRefused
			}
			return nil
		}}
		n := start(t, f, &fake{hang: true})
		n.Notify(Event{Kind: "a"})
		n.Notify(Event{Kind: "bad"})
		synctest.Wait()
		began := time.Now()
		if s := n.Status()[0]; s.Target != "fake" || s.Waiting != 2 || s.Delivered != 0 || s.Failing != began || s.Reason == nil {
			t.Errorf("while it is away: %+v", s)
		}
		f.mu.Lock()
		away = false
		f.mu.Unlock()
		time.Sleep(time.Hour)
		if s := n.Status()[0]; s.Waiting != 0 || s.Delivered != 1 || s.Lost != 1 || !s.Failing.IsZero() {
			t.Errorf("after it was back: %+v", s)
		}
		if s := n.Status()[1]; s.Waiting != 2 || s.Delivered != 0 {
			t.Errorf("one that hangs: %+v", s)
		}
	})
}

func TestLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		n := start(t, f)
		n.targets[0].least = rank(Warning)
		for _, e := range []Event{{Kind: "a", Severity: Info}, {Kind: "b", Severity: Warning}, {Kind: "c", Severity: Alarm},
			{Kind: "d", Severity: Alarm, State: On}, {Kind: "d", Severity: Info, State: Off}, {Kind: "e", Severity: Info}} {
			n.Notify(e)
		}
		synctest.Wait()
		if got := f.told(); got != "b c don doff" {
			t.Error(got)
		}
	})
}

// TestSettle waits for what can be delivered, and for nothing else.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, dead := &fake{}, &fake{answer: func(int, Delivery) error { return errors.New("away") }}
		n := start(t, f, dead)
		for range 3 {
			n.Notify(Event{Kind: "a"})
		}
		began := time.Now()
		n.Settle(t.Context())
		if f.told() != "a a*1" || time.Since(began) > settleEvery {
			t.Errorf("told %q after %v", f.told(), time.Since(began))
		}
		m := start(t, &fake{hang: true})
		m.Notify(Event{Kind: "a"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if m.Settle(ctx); time.Since(began) != time.Second {
			t.Errorf("a target that hangs was waited for %v", time.Since(began))
		}
	})
}

// TestTest: a test reaches a real server, a real program, and says what each
// of them made of it.
func TestTest(t *testing.T) {
	heard := make(chan string, 4)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard <- r.URL.Path
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	good := write(t, "good", "#!/bin/sh\nexit 0\n", 0o755)
	fails := write(t, "fails", "#!/bin/sh\necho no modem; exit 3\n", 0o755)
	slow := write(t, "slow", "#!/bin/sh\nexec sleep 60\n", 0o755)
	n, err := New(Config{{Webhook: server.URL + "/good"}, {Webhook: server.URL + "/bad"}, {Exec: good}, {Exec: fails}, {Exec: slow, Timeout: 100 * time.Millisecond}}, silent)
	if err != nil {
		t.Fatal(err)
	}
	results := n.Test(t.Context(), Event{Kind: "notify-test"})
	for i, want := range []string{"", "403", "", "exit status 3: no modem", "did not end within"} {
		got := ""
		if results[i].Err != nil {
			got = results[i].Err.Error()
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", results[i].Target, got, want)
		}
	}
	if len(heard) != 2 || len(n.targets[0].queue.items) != 0 {
		t.Errorf("the servers were asked %d times, %d wait", len(heard), len(n.targets[0].queue.items))
	}
}
