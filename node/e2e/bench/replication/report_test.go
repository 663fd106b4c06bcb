package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"vmctl/ha/golden"
)

// turns are three rounds; times are how long a write takes, by arm.
func turns(ours float64) (list []Sample) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for round, slow := range []float64{1, 3, 2} { // the machine is not always as fast
		for _, p := range []struct {
			name  string
			arms  []string
			loads []load
		}{{partBlocks, blockArms, blockLoads}, {partGuest, guestArms, guestLoads}} {
			for _, arm := range p.arms {
				for _, l := range p.loads {
					us := slow * 100 * map[string]float64{armNone: 1, armTwice: 2, armStock: 4, armCopy: 5, armOurs: ours, armRestart: 3, armResume: ours}[arm]
					list = append(list, Sample{Run: "r", Round: round, Time: at, Part: p.name, Arm: arm, Load: l.name,
						result: result{Ops: 1000, Seconds: us / 1000, Median: us, P99: 2 * us, CPU: map[string]float64{partBlocks: 3 * us}[p.name]}})
				}
			}
		}
	}
	return list
}

func TestReport(t *testing.T) {
	golden.Compare(t, "report.golden", report(turns(2.5)))
}

// A goal that is missed is called so.
func TestGoals(t *testing.T) {
	for ours, missed := range map[float64]int{2.5: 0, 3: 4, 5: 6} {
		if got := strings.Count(goals(turns(ours)), "missed"); got != missed {
			t.Errorf("%v times as long: %d goals are missed, want %d:\n%s", ours, got, missed, goals(turns(ours)))
		}
	}
	if got := longer(turns(2.5), random1, armOurs, armNone); math.Abs(got-2.5) > 1e-9 {
		t.Errorf("ours takes %v times as long, want 2.5", got)
	}
}

func TestResultOf(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(100-i)*time.Millisecond)
	}
	if got := resultOf(took, 10*time.Second); got.rate() != 10 || got.Median != 50000 || got.P99 != 99000 {
		t.Errorf("got %+v, %v a second", got, got.rate())
	}
	if got := resultOf(nil, time.Second); got.rate() != 0 {
		t.Errorf("nothing was done: %+v", got)
	}
}
