package main

import (
	"slices"
	"time"
)

// Parts of the bench.
const (
	partBlocks = "blocks"
	partGuest  = "guest"
)

// Sample is one load while one way of replicating was on.
type Sample struct {
	Run   string    `json:"run"` // the invocation that made it
	Round int       `json:"round"`
	Time  time.Time `json:"time"`
	Part  string    `json:"part"`
	Arm   string    `json:"arm"`
	Load  string    `json:"load"`
	result
}

// result is what a load has done.
type result struct {
	Ops     int     `json:"ops"`
	Seconds float64 `json:"seconds"` // by the clock outside
	Median  float64 `json:"median"`  // of one operation, microseconds
	P99     float64 `json:"p99"`
	CPU     float64 `json:"cpu,omitempty"` // processor time of one operation in all processes, microseconds
}

// rate is operations a second.
func (r result) rate() float64 { return float64(r.Ops) / r.Seconds }

// resultOf makes one of how long each operation took.
func resultOf(took []time.Duration, all time.Duration) result {
	r := result{Ops: len(took), Seconds: all.Seconds()}
	if len(took) > 0 {
		slices.Sort(took)
		r.Median = float64(took[(len(took)-1)/2].Nanoseconds()) / 1000
		r.P99 = float64(took[(len(took)*99+99)/100-1].Nanoseconds()) / 1000
	}
	return r
}
