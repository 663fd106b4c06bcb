package main

import "time"

// Contestants of the bench.
const (
	vmctl            = "vmctl"
	pacemakerDefault = "pacemaker"
	pacemakerTuned   = "pacemaker tuned"
)

// Sample is one power cut. Times are seconds since just before the first
// process was killed.
type Sample struct {
	Run   string    `json:"run"` // the invocation that made it
	Round int       `json:"round"`
	Time  time.Time `json:"time"`
	Of    string    `json:"of"`
	From  string    `json:"from"` // the host that lost power
	To    string    `json:"to"`

	Answer float64 `json:"answer"` // first answer over UDP to a client outside
	HTTP   float64 `json:"http"`   // first answer over HTTP, asked after that
	Record float64 `json:"record"` // first datagram that the guest sends by itself
	Lost   float64 `json:"lost"`   // seconds of the guest's work that are gone from its memory

	Ran    float64 `json:"ran"`    // time that the guest's vCPUs on the new host ran until it answered
	Waited float64 `json:"waited"` // time that they were ready and waited for a processor of this machine

	Decided float64 `json:"decided,omitempty"` // ours: this node is the owner, loading begins
	Running float64 `json:"running,omitempty"` // ours: loaded and running; theirs: QEMU is started
	Fencing float64 `json:"fencing,omitempty"` // theirs: the survivor asks for the other's power to be cut
	Fenced  float64 `json:"fenced,omitempty"`  // theirs: it is told that the power is off
}

// since is a time as a sample has it.
func since(cut, t time.Time) float64 { return seconds(t.Sub(cut)) }

// seconds are exact to a millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
