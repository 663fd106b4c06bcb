package notify

import (
	"strings"
	"time"
	"unicode"
)

// State says which end of an alarm an event is.
type State string

// The states of events; plain events have none.
const (
	Plain State = ""
	On    State = "on"
	Off   State = "off"
)

// Severities of events, in the words of the agent's event log.
const (
	Info    = "info"
	Warning = "warning"
	Alarm   = "alarm"
)

// rank orders severities; what is unknown is told to everybody.
func rank(severity string) int {
	switch severity {
	case Info, "":
		return 0
	case Warning:
		return 1
	}
	return 2
}

// Event is something that happened. Time is now if it is zero.
type Event struct {
	Kind     string
	Severity string
	VM       string // the guest's name; empty: the node's own
	Node     string
	Message  string
	Time     time.Time
	State    State

	// ID and Position are those of the event in its owner's log. Positions rise
	// from one event to the next, over all runs. Position 0: it is in no log, and
	// after a restart nobody hears of it. ID empty: it gets one.
	ID       string
	Position uint64
}

// Delivery is what a target gets: an event and what went before it.
type Delivery struct {
	Version  int    `json:"version"` // 1; fields are added, never renamed
	ID       string `json:"id"`
	Kind     string `json:"kind"`
	Severity string `json:"severity"`
	VM       string `json:"vm"`
	Node     string `json:"node"`
	Message  string `json:"message"`
	Time     string `json:"time"` // RFC 3339 with milliseconds, UTC
	State    State  `json:"state,omitempty"`
	Repeated int    `json:"repeated,omitempty"` // equal events not told since the last
	Dropped  int    `json:"dropped,omitempty"`  // deliveries lost before this one

	position uint64 // of the event
	standing bool   // an alarm of before the target's time
}

const (
	timeLayout  = "2006-01-02T15:04:05.000Z07:00"
	mostWord    = 256  // bytes of a kind, a name
	mostMessage = 4096 // bytes: a datagram of the system's log takes it
)

func newDelivery(id string, e Event, repeated int) Delivery {
	return Delivery{
		Version: 1, ID: id, Kind: e.Kind, Severity: e.Severity, VM: e.VM, Node: e.Node, Message: e.Message,
		Time: e.Time.UTC().Format(timeLayout), State: e.State, Repeated: repeated, position: e.Position,
	}
}

// tidy makes e fit for every target: parts of bounded length, without control
// characters but the line ends of a message.
func (e Event) tidy() Event {
	for _, word := range []*string{&e.Kind, &e.Severity, &e.VM, &e.Node} {
		*word = text(strings.ReplaceAll(*word, "\n", " "), mostWord)
	}
	e.Message = text(e.Message, mostMessage)
	return e
}

func text(s string, most int) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return ' '
		}
		return r
	}, s)
}
