package main

import (
	"testing"
	"time"

	"vmctl/ha/golden"
)

// cuts are three rounds of all.
func cuts() (list []Sample) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, answer := range []float64{2.7, 2.5, 2.6} {
		list = append(list,
			Sample{Run: "r", Round: i, Time: at, Of: vmctl, From: "a", To: "b", Answer: answer, HTTP: answer + 0.05, Record: answer - 0.1, Lost: answer - 2.4, Ran: 0.1, Waited: 0.02, Decided: 2.3, Running: 2.4},
			Sample{Run: "r", Round: i, Time: at, Of: pacemakerDefault, From: "a", To: "b", Answer: 6 * answer, HTTP: 6*answer + 0.1, Record: 6 * answer, Lost: 100, Fencing: 7, Fenced: 7.25, Ran: 5, Waited: 0.5, Running: 9},
		)
	}
	return list
}

func TestReport(t *testing.T) {
	golden.Compare(t, "report.golden", report(cuts(), "pacemaker 2.1, corosync 3.1"))
}
