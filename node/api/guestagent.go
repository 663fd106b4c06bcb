package api

// GuestAgent says whether the agent inside the guest answers, and how late the
// guest's clock was when it last did; less than zero: ahead of the host's.
type GuestAgent struct {
	Answers            bool     `json:"answers"`
	Reason             string   `json:"reason,omitempty"`
	Seen               *Time    `json:"seen"`
	ClockBehindSeconds *float64 `json:"clock_behind_seconds"`
}
