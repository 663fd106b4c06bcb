package main

import (
	"testing"

	"vmctl/ha/golden"
)

func TestReport(t *testing.T) {
	var all []Sample
	for i, slow := range []float64{1, 3, 2} {
		all = append(all, Sample{Round: i, Standby: true, Lease: 2400 * slow, Running: 10 * slow, Output: 15 * slow},
			Sample{Round: i, Lease: 2300 * slow, Running: 100 * slow, Output: 160 * slow})
	}
	golden.Compare(t, "report.golden", report(all))
}
