package work

import "time"

// Status is what the guest tells of itself, as JSON, over HTTP and the echo ports.
type Status struct {
	Token   string    `json:"token"`
	Counter uint64    `json:"counter"`
	Chain   string    `json:"chain"`
	Boots   uint32    `json:"boots"`          // runs since the disk was empty, this one counted
	Uptime  float64   `json:"uptime_seconds"` // by the guest's clock
	Broken  bool      `json:"broken"`
	Reason  string    `json:"reason,omitempty"`
	Memory  MemStatus `json:"memory"`
	Disk    LogStatus `json:"disk"`
	Clock   time.Time `json:"clock"`
	// Sizes are those of the disks as the kernel sees them, by name, in bytes.
	Sizes map[string]int64 `json:"sizes"`
}

// MemStatus is how far the work on the memory is.
type MemStatus struct {
	Pages   uint64 `json:"pages"`
	Written uint64 `json:"written"`
}

// LogStatus is how far the log on the disks is.
type LogStatus struct {
	Disks   int    `json:"disks"`
	Records uint64 `json:"records"` // since the disk was empty
	Counter uint64 `json:"counter"` // of the last record
}

// Datagram is what the guest sends to its recorder at every step, as JSON.
type Datagram struct {
	Token   string `json:"token"`
	Counter uint64 `json:"counter"`
	Chain   string `json:"chain"`
	Broken  bool   `json:"broken"`
	Clock   int64  `json:"clock"` // guest's wall clock, ns since 1970
}
