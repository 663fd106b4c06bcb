package vm

import (
	"encoding/json"
	"time"
)

// RunState is QEMU's word for what a guest does, plus "stopped" for a guest
// without a QEMU. Words that later versions of QEMU add are passed on.
type RunState string

// The run states this program acts on.
const (
	StateStopped   RunState = "stopped"
	StatePrelaunch RunState = "prelaunch"
	StateRunning   RunState = "running"
	StatePaused    RunState = "paused"
	StateIncoming  RunState = "inmigrate"
	StateMigrated  RunState = "postmigrate"
	StateShutdown  RunState = "shutdown"
	StateSuspended RunState = "suspended"
	StateIOError   RunState = "io-error"
	StatePanicked  RunState = "guest-panicked"
	StateInternal  RunState = "internal-error"
	StateWatchdog  RunState = "watchdog"
)

// EventKind tells events apart.
type EventKind string

// Values of EventKind.
const (
	// EventRunState: the state changed and stayed so for settle. The short
	// pauses of checkpoints are not reported.
	EventRunState EventKind = "run-state"
	// EventShutdown: the guest is switching itself off; EventExited follows.
	EventShutdown EventKind = "guest-shutdown"
	// EventReset: the guest reboots.
	EventReset EventKind = "reset"
	// EventPanicked: the guest's kernel gave up. It stays, stopped.
	EventPanicked EventKind = "guest-panicked"
	// EventExited: QEMU is gone. The last event.
	EventExited EventKind = "exited"
	// EventMonitorLost: QEMU runs on but cannot be spoken to. Close and adopt.
	EventMonitorLost EventKind = "monitor-lost"
)

// Event is something that happened to a guest.
type Event struct {
	Kind  EventKind
	Time  time.Time
	State RunState // after the event
	Exit  Exit     // of EventExited
}

// settle is how long a change of state must last to be reported.
const settle = 500 * time.Millisecond

// tracker turns QEMU's events into a state and into events of the guest. It is
// owned by one goroutine and knows no clock.
type tracker struct {
	state    RunState
	reported RunState
	ending   ending
	ioError  bool
}

// apply takes one event of QEMU. kind is empty if nothing is to be told at once.
func (t *tracker) apply(name string, data json.RawMessage) (kind EventKind) {
	var detail struct {
		Guest  bool   `json:"guest"`
		Reason string `json:"reason"`
		Action string `json:"action"`
	}
	_ = json.Unmarshal(data, &detail) // absent in many events, all fields are optional
	switch name {
	case "STOP":
		switch {
		case t.ending.panicked:
			t.state = StatePanicked
		case t.ioError:
			t.state = StateIOError
		default:
			t.state = StatePaused
		}
	case "RESUME", "WAKEUP":
		t.state, t.ioError, t.ending.panicked = StateRunning, false, false
	case "SUSPEND":
		t.state = StateSuspended
	case "BLOCK_IO_ERROR":
		t.ioError = t.ioError || detail.Action == "stop"
	case "GUEST_PANICKED":
		if detail.Action == "run" {
			return "" // crash kernel takes over
		}
		t.ending.panicked, t.state, t.reported = true, StatePanicked, StatePanicked
		return EventPanicked
	case "RESET":
		if detail.Guest || detail.Reason == "host-qmp-system-reset" {
			t.ending.panicked = false
			return EventReset
		}
	case "SHUTDOWN":
		t.ending.cause = detail.Reason
		if detail.Reason == "guest-shutdown" {
			t.state, t.reported = StateShutdown, StateShutdown
			return EventShutdown
		}
	}
	return ""
}

// changed says whether the state is other than the one reported, and marks it
// as reported.
func (t *tracker) changed() bool {
	changed := t.state != t.reported
	t.reported = t.state
	return changed
}
