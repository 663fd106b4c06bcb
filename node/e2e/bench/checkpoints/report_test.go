package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"vmctl/ha/golden"
	"vmctl/node/api"
)

// figures are some of each part.
func figures() (list []Sample) {
	for i, slow := range []float64{1, 3, 2} {
		for _, memory := range memories {
			for _, rate := range rates {
				s := Sample{Memory: memory, Rate: rate}
				s.Of, s.Pause, s.Bytes = ofOurs, 10*slow, int64(rate)*500_000
				list = append(list, s)
				s.Of, s.Pause, s.Bytes = ofSavevm, 500*slow, 40e6
				list = append(list, s)
				s.Of, s.Pause, s.Bytes = ofCompare, 100*slow, 0
				list = append(list, s)
				s.Of, s.Pause = ofSoftDirty, 7*slow
				list = append(list, s)
			}
		}
		list = append(list, Sample{Of: ofCopy, Case: "rows=64/known=true", Copied: 6 / slow, Memcpy: 7 / slow, Pages: 6.5 / slow},
			Sample{Of: ofMany, Guest: string(rune('c' - i)), Taken: 100, Interval: 0.5, Longest: 0.6 * slow, Missed: i, Pause: 12, Processors: 1.2},
			Sample{Of: ofMany, Guest: string(rune('c' - i)), Busy: true, Taken: 50, Interval: 1, Longest: 1.2 * slow, Missed: 50, Pause: 40, Processors: 2})
	}
	return list
}

func TestReport(t *testing.T) {
	golden.Compare(t, "report.golden", report(figures()))
	if part := report(nil); part != head {
		t.Errorf("nothing was measured:\n%s", part)
	}
}

func TestIntervals(t *testing.T) {
	var list []api.Checkpoint
	for i, at := range []float64{0, 0.5, 1, 2, 2.9, 3.4} { // one comes after two intervals
		list = append(list, api.Checkpoint{Sequence: uint64(i), PauseMS: float64(i), Time: api.Time{Time: time.Unix(0, int64(at*1e9))}})
	}
	list[1], list[4] = list[4], list[1] // in any order
	got := intervals(list, time.Unix(0, 0), time.Unix(4, 0))
	if got.Taken != 6 || got.Missed != 1 || got.Pause != 2.5 || math.Abs(got.Longest-1) > 1e-9 || math.Abs(got.Interval-0.5) > 1e-9 {
		t.Errorf("got %+v", got)
	}
	if none := intervals(nil, time.Unix(0, 0), time.Unix(10, 0)); none.Missed != 19 || none.Taken != 0 || none.Longest != 10 {
		t.Errorf("no checkpoints: %+v", none)
	}
}

func TestEachResult(t *testing.T) {
	const said = `goos: linux
BenchmarkPause/rows=1/known=false-2         	      21	        52.33 %of-memcpy	         2.400 GB/s-memcpy	         1.250 GB/s-pause
PASS
`
	var got []string
	err := eachResult(strings.NewReader(strings.ReplaceAll(said, "\n", "\r\n")), func(name string, values map[string]float64) error {
		if values["GB/s-pause"] != 1.25 || values["GB/s-memcpy"] != 2.4 {
			t.Errorf("got %v", values)
		}
		got = append(got, name)
		return nil
	})
	if err != nil || len(got) != 1 || got[0] != "rows=1/known=false" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := eachResult(strings.NewReader("PASS\n"), nil); err == nil {
		t.Error("a run without results is one")
	}
}
