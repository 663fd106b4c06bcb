package api

// Values of Fallback.To.
const (
	FallbackCheckpoint = "checkpoint" // memory, devices and disks of it
	FallbackDisks      = "disks"      // as they were when they were whole at last
	FallbackNothing    = "nothing"    // the disks are in the middle of a resync, and nothing older is kept
)

// Fallback is what an operator's promotion of a replica that is not in sync would
// begin from. It never happens by itself.
type Fallback struct {
	To         string   `json:"to"`
	Time       *Time    `json:"time,omitempty"`        // of that state
	AgeSeconds *float64 `json:"age_seconds,omitempty"` // of that state
	Bytes      int64    `json:"bytes"`                 // that keeping it takes on the peer
}
