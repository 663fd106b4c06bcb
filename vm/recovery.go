package vm

import (
	"slices"
	"time"
)

// Recovery says when and how a guest is started on this node or, after a
// failure, on the peer. Names are those of guests of the cluster.
type Recovery struct {
	// Action is what the peer does with the guest when its owner has failed.
	Action string `yaml:"action,omitempty" json:"action" msgpack:"action,omitempty"`
	// Priority orders starts: the higher one first.
	Priority int `yaml:"priority,omitempty" json:"priority,omitempty" msgpack:"priority,omitempty"`
	// After names the guests that run, here or on the peer, before this one starts.
	After []string `yaml:"after,omitempty" json:"after,omitempty" msgpack:"after,omitempty"`
	// Attempts is how many starts in a row may fail before it is given up.
	Attempts int `yaml:"attempts,omitempty" json:"attempts,omitempty" msgpack:"attempts,omitempty"`
	// BackoffSeconds is the wait after the first failed start; it doubles with
	// each further one.
	BackoffSeconds float64 `yaml:"backoff_seconds,omitempty" json:"backoff_seconds,omitempty" msgpack:"backoff_seconds,omitempty"`
	Failback       string  `yaml:"failback,omitempty" json:"failback" msgpack:"failback,omitempty"`
	// SettleSeconds is how long all must have been well before it goes home.
	SettleSeconds float64 `yaml:"settle_seconds,omitempty" json:"settle_seconds,omitempty" msgpack:"settle_seconds,omitempty"`
	// Home is the node that the guest was made on or last placed on by its user.
	Home string `yaml:"home,omitempty" json:"home,omitempty" msgpack:"home,omitempty"`
}

// Values of Recovery.Action.
const (
	RecoverResume  = "resume"
	RecoverRestart = "restart"
	RecoverLeave   = "leave"
)

// Values of Recovery.Failback.
const (
	FailbackNever      = "never"
	FailbackWhenSynced = "when-synced"
)

// Backoff is the wait after the first failed start.
func (r Recovery) Backoff() time.Duration { return seconds(r.BackoffSeconds) }

// Settle is how long all must have been well before the guest goes home.
func (r Recovery) Settle() time.Duration { return seconds(r.SettleSeconds) }

// Defaults answers what the user did not say.
func (r Recovery) Defaults() Recovery {
	r.Action = either(r.Action, RecoverResume)
	r.Attempts = either(r.Attempts, defaultStarts)
	r.BackoffSeconds = either(r.BackoffSeconds, defaultStartBackoff)
	r.Failback = either(r.Failback, FailbackNever)
	if r.Failback != FailbackNever {
		r.SettleSeconds = either(r.SettleSeconds, defaultSettle)
	}
	r.After = append([]string(nil), r.After...)
	return r
}

// Bounds of a Recovery.
const (
	maxPriority     = 1000
	maxAfter        = 64
	maxStarts       = 1000
	maxStartBackoff = 600   // seconds
	maxSettle       = 86400 // seconds
)

func (s Spec) checkRecovery(f *findings) {
	r := s.Recovery
	switch r.Action {
	case RecoverResume, RecoverRestart, RecoverLeave:
	default:
		f.add("recovery action %q: use resume, restart or leave", r.Action)
	}
	if r.Priority < -maxPriority || r.Priority > maxPriority {
		f.add("recovery priority %d: use %d to %d", r.Priority, -maxPriority, maxPriority)
	}
	if r.Attempts < 1 || r.Attempts > maxStarts {
		f.add("recovery attempts %d: use 1 to %d", r.Attempts, maxStarts)
	}
	if !(r.BackoffSeconds >= 0 && r.BackoffSeconds <= maxStartBackoff) {
		f.add("recovery backoff_seconds %v: use more than 0, at most %d", r.BackoffSeconds, maxStartBackoff)
	}
	if !(r.SettleSeconds >= 0 && r.SettleSeconds <= maxSettle) {
		f.add("recovery settle_seconds %v: use more than 0, at most %d", r.SettleSeconds, maxSettle)
	}
	switch {
	case r.Failback == FailbackNever:
	case r.Failback != FailbackWhenSynced:
		f.add("recovery failback %q: use never or when-synced", r.Failback)
	case s.Protection.Level != ProtectResume:
		f.add("recovery failback when-synced needs protection resume: another guest would have to be shut down to go home")
	}
	s.checkAfter(f)
}

// checkAfter checks the names alone; whether such guests exist, and wait for
// each other, is known to the cluster only.
func (s Spec) checkAfter(f *findings) {
	after := s.Recovery.After
	if len(after) > maxAfter {
		f.add("recovery after: %d guests, %d are the most", len(after), maxAfter)
		return
	}
	for i, name := range after {
		switch {
		case name == s.Name:
			f.add("recovery after %q: a guest cannot wait for itself", name)
		case !nameForm.MatchString(name):
			f.add("recovery after %q: that is no guest's name", name)
		case slices.Contains(after[:i], name):
			f.add("recovery after %q: it is named twice", name)
		}
	}
}
