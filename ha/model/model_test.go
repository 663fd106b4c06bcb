package model

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/ha/golden"
)

var (
	depth  = flag.Int("ha.model.depth", 0, "transitions to search; 0: what a test run has time for")
	faults = flag.Int("ha.model.faults", 2, "faults on one path, with -ha.model.depth")
)

// TestSafe searches the protocol as it is.
func TestSafe(t *testing.T) {
	bounds := []Bounds{
		{Depth: 11, Faults: 1},
		{Depth: 6, Faults: 2},
		{Depth: 9, Faults: 2, Only: []Kind{CutOff, Restart, Pause, Drift}},
		{Depth: 7, Faults: 1, Guests: 2},
		{Mode: ha.ModeFence, Depth: 12, Faults: 1},
		{Mode: ha.ModeFence, Depth: 7, Faults: 2},
		{Mode: ha.ModeFence, Depth: 18, Faults: 1, Only: []Kind{Cut, CutOff}},
		{Mode: ha.ModeFence, Depth: 8, Faults: 1, Guests: 2},
		{Mode: ha.ModeBias, Depth: 11, Faults: 1, Guests: 2},
		{Mode: ha.ModeBias, Depth: 6, Faults: 2},
	}
	if underRace { // the searchers' sharing; make sim searches all of the above
		bounds = []Bounds{
			{Depth: 7, Faults: 1}, {Depth: 3, Faults: 2}, {Depth: 5, Faults: 1, Guests: 2},
			{Mode: ha.ModeFence, Depth: 8, Faults: 1}, {Mode: ha.ModeBias, Depth: 6, Faults: 1, Guests: 2},
		}
	}
	if *depth > 0 {
		bounds = []Bounds{{Depth: *depth, Faults: *faults}}
	}
	for _, b := range bounds {
		t.Run(fmt.Sprintf("%+v", b), func(t *testing.T) {
			t.Parallel()
			at := time.Now()
			r := Search(b)
			t.Logf("%d states, %d transitions, depth %d, at most %d at once, %v",
				r.States, r.Transitions, r.Depth, r.Widest, time.Since(at).Round(time.Millisecond))
			if r.Violation != "" {
				t.Errorf("%s", strings.Join(r.Trace, "\n"))
			}
			if r.States < 1000 {
				t.Errorf("only %d states: the search proves too little", r.States)
			}
		})
	}
}

// TestUnsafe: a protocol that lacks one rule has a counterexample, the shortest
// within its bounds. A search that cannot fail proves nothing.
func TestUnsafe(t *testing.T) {
	if underRace {
		t.Skip("a search has one goroutine; the other build makes it")
	}
	for v, u := range map[Variant]struct {
		mode  ha.Mode
		depth int
		only  []Kind
	}{
		Receipt:       {ha.ModeWitness, 12, []Kind{CutOff, Hold}},
		Relative:      {ha.ModeWitness, 12, []Kind{Cut, Suspend}},
		AgentEnforced: {ha.ModeWitness, 12, []Kind{Pause, Crash, CutOff}},
		Forgetful:     {ha.ModeWitness, 12, []Kind{CutOff, Restart}},
		Gateway:       {ha.ModeWitness, 12, []Kind{Cut, CutOff, Crash}},
		NoArbiter:     {ha.ModeWitness, 12, []Kind{Cut, CutOff, Crash}},
		Unconfirmed:   {ha.ModeFence, 12, []Kind{Cut, Pause}},
		OldBeat:       {ha.ModeFence, 20, []Kind{Cut}},
	} {
		only := u.only
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := Bounds{Mode: u.mode, Depth: u.depth, Faults: 2, Variant: v, Only: only}
			r := Search(b)
			if r.Violation == "" {
				t.Fatalf("no counterexample in %d states", r.States)
			}
			if r.States < 20_000 { // the larger ones cost too much to search twice
				if safe := Search(Bounds{Mode: u.mode, Depth: r.Depth, Faults: 2, Only: only}); safe.Violation != "" {
					t.Errorf("the whole protocol fails too: %s", strings.Join(safe.Trace, "\n"))
				}
			}
			t.Logf("%d transitions, %d states: %s", len(r.Trace)-2, r.States, r.Violation)
			golden.Compare(t, string(v)+".golden", strings.Join(r.Trace, "\n")+"\n")
		})
	}
}
