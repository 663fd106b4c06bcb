package api

// NotifyTarget is who hears of events and alarms, and how well.
type NotifyTarget struct {
	Target    string `json:"target"`
	Delivered int    `json:"delivered"` // since the agent was started
	Waiting   int    `json:"waiting"`
	Lost      int    `json:"lost"` // refused, or pushed out of a full queue
	Failing   *Time  `json:"failing_since,omitempty"`
	Error     string `json:"error,omitempty"`
}

// NotifyTest is what became of a test notification at one target.
type NotifyTest struct {
	Target string  `json:"target"`
	OK     bool    `json:"ok"`
	Millis float64 `json:"took_ms"`
	Error  string  `json:"error,omitempty"`
}

// Shutdown says what became of a node's guests when it was shut down.
type Shutdown struct {
	Node    string   `json:"node"`
	Moved   []string `json:"moved"`
	Stopped []Stay   `json:"stopped"` // how, and why they were not moved
	Stay    []Stay   `json:"stay"`    // they could not be stopped
}

// Maintenance says what became of a node's guests when it went out of service.
type Maintenance struct {
	Node  string   `json:"node"`
	On    bool     `json:"on"`
	Moved []string `json:"moved"`
	Stay  []Stay   `json:"stay"`

	Stopped []Stay `json:"stopped,omitempty"` // guests that do not run, and were not moved
}

// Stay is a guest that could not be moved, and why.
type Stay struct {
	VM     string `json:"vm"`
	Reason string `json:"reason"`
}

// Kept are the disks of a guest as a node wrote them last before another took
// over. They may hold writes that the guest as it runs now never saw.
type Kept struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Path  string `json:"path"` // on that node
	Bytes int64  `json:"bytes"`
	Since Time   `json:"since"`
}
