package main

import "time"

// Sample is one figure, or some that belong together. Of says which part of the
// bench it is from.
type Sample struct {
	Run  string    `json:"run"`
	Time time.Time `json:"time"`
	Of   string    `json:"of"`

	Memory int     `json:"memory,omitempty"` // MiB
	Rate   int     `json:"rate,omitempty"`   // MB a second that the guest writes
	Pause  float64 `json:"pause,omitempty"`  // milliseconds
	Bytes  int64   `json:"bytes,omitempty"`  // of a checkpoint on the link, or of savevm in the image

	Case   string  `json:"case,omitempty"`   // of the copying
	Copied float64 `json:"copied,omitempty"` // GB a second in the pause
	Memcpy float64 `json:"memcpy,omitempty"` // GB a second by a plain copy of the same run
	Pages  float64 `json:"pages,omitempty"`  // likewise, by a plain copy of the same pages

	Guest    string  `json:"guest,omitempty"`    // one of many
	Taken    int     `json:"taken,omitempty"`    // checkpoints
	Interval float64 `json:"interval,omitempty"` // seconds from one to the next, the middle one
	Longest  float64 `json:"longest,omitempty"`  // seconds
	Missed   int     `json:"missed"`             // of them, by two intervals and more
	Busy     bool    `json:"busy,omitempty"`     // the many work
	// Processors are those in use while the many were watched, by whatever ran.
	Processors float64 `json:"processors,omitempty"`
}

// Values of Sample.Of.
const (
	ofOurs      = "ours"
	ofSavevm    = "savevm"
	ofCopy      = "copy"
	ofCompare   = "compare"    // in a guest with Debian's kernel
	ofSoftDirty = "soft-dirty" // likewise
	ofMany      = "many"
)
