package vm

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"vmctl/vm/guard"
)

func TestTracker(t *testing.T) {
	type event struct{ name, data string }
	tests := []struct {
		name   string
		events []event
		kinds  []EventKind
		state  RunState
	}{
		{"checkpoint", []event{{"STOP", ""}, {"RESUME", ""}}, nil, StateRunning},
		{"pause", []event{{"STOP", ""}}, nil, StatePaused},
		{"panic", []event{{"GUEST_PANICKED", `{"action":"pause"}`}, {"STOP", ""}}, []EventKind{EventPanicked}, StatePanicked},
		{"panic, then reset", []event{{"GUEST_PANICKED", `{"action":"pause"}`}, {"STOP", ""}, {"RESET", `{"reason":"host-qmp-system-reset"}`}, {"RESUME", ""}},
			[]EventKind{EventPanicked, EventReset}, StateRunning},
		{"crash kernel", []event{{"GUEST_PANICKED", `{"action":"run"}`}}, nil, StateRunning},
		{"disk full", []event{{"BLOCK_IO_ERROR", `{"action":"stop"}`}, {"STOP", ""}}, nil, StateIOError},
		{"disk error passed to the guest", []event{{"BLOCK_IO_ERROR", `{"action":"report"}`}, {"STOP", ""}}, nil, StatePaused},
		{"reboot", []event{{"RESET", `{"guest":true,"reason":"guest-reset"}`}}, []EventKind{EventReset}, StateRunning},
		{"reset of QEMU's own", []event{{"RESET", `{"guest":false,"reason":"none"}`}}, nil, StateRunning},
		{"off", []event{{"POWERDOWN", ""}, {"SHUTDOWN", `{"guest":true,"reason":"guest-shutdown"}`}, {"STOP", ""}}, []EventKind{EventShutdown}, StatePaused},
		{"quit", []event{{"SHUTDOWN", `{"guest":false,"reason":"host-qmp-quit"}`}}, nil, StateRunning},
		{"sleep", []event{{"SUSPEND", ""}}, nil, StateSuspended},
		{"nonsense", []event{{"SHUTDOWN", `[1]`}, {"RESET", `{"guest":7}`}, {"FOO", `{`}}, nil, StateRunning},
	}
	for _, test := range tests {
		tracker := tracker{state: StateRunning, reported: StateRunning}
		var kinds []EventKind
		for _, e := range test.events {
			if kind := tracker.apply(e.name, json.RawMessage(e.data)); kind != "" {
				kinds = append(kinds, kind)
			}
		}
		if !slices.Equal(kinds, test.kinds) || tracker.state != test.state {
			t.Errorf("%s: got %v and %s, want %v and %s", test.name, kinds, tracker.state, test.kinds, test.state)
		}
	}
}

func TestExitReason(t *testing.T) {
	tests := []struct {
		name   string
		seen   ending
		record *guard.ExitRecord
		want   ExitReason
	}{
		{"nothing known", ending{}, nil, ExitLost},
		{"guard died while it was being stopped", ending{requested: true}, nil, ExitStopped},
		{"guest shut down", ending{cause: "guest-shutdown"}, &guard.ExitRecord{Reason: guard.ReasonExited}, ExitShutdown},
		{"nobody watched", ending{}, &guard.ExitRecord{Reason: guard.ReasonExited}, ExitShutdown},
		{"status", ending{}, &guard.ExitRecord{Reason: guard.ReasonExited, Code: 1}, ExitCrashed},
		{"signal", ending{}, &guard.ExitRecord{Reason: guard.ReasonExited, Code: -1, Signal: 11}, ExitCrashed},
		{"crash after the guest shut down", ending{cause: "guest-shutdown"}, &guard.ExitRecord{Reason: guard.ReasonExited, Signal: 6}, ExitCrashed},
		{"panic", ending{panicked: true}, &guard.ExitRecord{Reason: guard.ReasonExited}, ExitPanicked},
		{"panicked guest stopped by its user", ending{panicked: true, requested: true}, &guard.ExitRecord{Reason: guard.ReasonKilled}, ExitStopped},
		{"lease over", ending{requested: true}, &guard.ExitRecord{Reason: guard.ReasonRevoked}, ExitRevoked},
		{"lease over before the start", ending{}, &guard.ExitRecord{Reason: guard.ReasonExpired}, ExitRevoked},
		{"stopped at the lease's end", ending{}, &guard.ExitRecord{Reason: guard.ReasonIsolated, Code: -1, Signal: 9}, ExitIsolated},
		{"killed by another agent", ending{}, &guard.ExitRecord{Reason: guard.ReasonKilled, Signal: 9}, ExitStopped},
		{"quit by hand", ending{cause: "host-qmp-quit"}, &guard.ExitRecord{Reason: guard.ReasonExited}, ExitStopped},
		{"not executable", ending{}, &guard.ExitRecord{Reason: guard.ReasonFailed}, ExitFailed},
	}
	for _, test := range tests {
		if got := test.seen.exit(test.record); got.Reason != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got.Reason, test.want)
		}
	}
	text := ending{}.exit(&guard.ExitRecord{Reason: guard.ReasonExited, Code: 1, Output: "qemu-system-x86_64: -foo: invalid option\n"}).String()
	if text != "crashed (exit status 1): -foo: invalid option" {
		t.Errorf("text: %s", text)
	}
}

func TestFeedKeepsTheLastEvent(t *testing.T) {
	var f feed
	events, cancel := f.subscribe()
	slow := 0
	for range backlog {
		slow += f.publish(Event{Kind: EventReset})
	}
	if slow != 0 {
		t.Errorf("a reader with room is called slow")
	}
	if f.publish(Event{Kind: EventExited, Time: time.Now()}) != 1 {
		t.Error("a full reader is not called slow")
	}
	f.close()
	cancel()
	var last Event
	n := 0
	for last = range events {
		n++
	}
	if n != backlog || last.Kind != EventExited {
		t.Errorf("%d events, the last is %s", n, last.Kind)
	}
	late, cancel := f.subscribe()
	defer cancel()
	if _, more := <-late; more {
		t.Error("an event after the end")
	}
}
