package ha_test

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/ha/sim"
)

// mutation is a protocol with a rule broken, and where to look for what goes
// wrong then. The same schedules pass without it.
type mutation struct {
	name    string
	rule    ha.Mutant
	node    ha.Mutant // on nodes only
	witness ha.Mutant // on witnesses only
	window  string    // a term that is left out
	mode    ha.Mode
	duels   bool
	mix     []sim.Kind // nil: all
	wrong   bool       // operators give a wrong word
	want    string
	seed    uint64 // of the first schedule that has shown it, tried first; 0: soon found anyhow
}

// What a violation says.
const (
	twice  = "runs on|after epoch|was node-" // two executions, or one of a stale epoch
	lost   = "was acknowledged|was outdated|void checkpoint"
	stuck  = "after healing"
	untrue = "but stored|comes after an action"
)

// Faults among which some mutants show soon.
var (
	late    = []sim.Kind{sim.LaggyLink, sim.CopyLink, sim.NoisyLink, sim.CutOneWay, sim.CutLink, sim.CrashAgent}
	removal = []sim.Kind{sim.Replace, sim.CutLink, sim.CutOneWay, sim.Isolate, sim.CrashAgent, sim.PowerOff}
)

var mutations = []mutation{
	{name: "lease counted from receipt", rule: ha.MutantLeaseFromReceipt, want: twice},
	{name: "lease counted from receipt, mode bias", rule: ha.MutantLeaseFromReceipt, mode: ha.ModeBias, want: twice},
	{name: "window without the drift of clocks", window: "drift", want: twice},
	{name: "window without the time to stop", window: "stop", want: twice},
	{name: "window without the time between two looks", window: "tick", mode: ha.ModeWitness, want: twice, seed: 627},
	{name: "window without the time to stop, mode bias", window: "stop", mode: ha.ModeBias, want: twice},
	{name: "said before it is stored", rule: ha.MutantSayBeforeStored, want: untrue},
	{name: "no promise before the claim", rule: ha.MutantNoPromise, mode: ha.ModeWitness, duels: true, want: twice + "|" + lost, seed: 509},
	{name: "renewals acknowledged after the promise", rule: ha.MutantAckAfterPromise, want: twice + "|" + lost},
	{name: "no restart wait at all", rule: ha.MutantNoRestartWait, duels: true, want: twice},
	{name: "no restart wait at the witness", witness: ha.MutantNoRestartWait, duels: true, want: twice},
	{name: "no restart wait at the nodes", node: ha.MutantNoRestartWait, want: twice, seed: 3359},
	{name: "acknowledgements not noted by the granter", rule: ha.MutantGrantNotNoted, duels: true, want: twice},
	{name: "acknowledgement of another incarnation", rule: ha.MutantAckOfOtherBoot, mode: ha.ModeWitness, duels: true, want: twice, seed: 213},
	{name: "revisions not compared", rule: ha.MutantOldRevision, mode: ha.ModeWitness, mix: late, want: lost, seed: 3685},
	{name: "replica not durably outdated", rule: ha.MutantDetachAtOnce, want: lost},
	{name: "replica not durably outdated, mode fence", rule: ha.MutantDetachAtOnce, mode: ha.ModeFence, want: lost},
	{name: "any revision counts as known", rule: ha.MutantKnownAnyRevision, want: lost},
	{name: "outdated ignored by claims", rule: ha.MutantOutdatedClaims, want: lost},
	{name: "the answer to a question is enough", rule: ha.MutantAskIsEnough, duels: true, want: twice + "|" + lost, seed: 474},
	{name: "a refusal is not final, and no quiet wait", rule: ha.MutantRefusalNotFinal | ha.MutantNoQuiet, mode: ha.ModeWitness, want: twice + "|" + lost, seed: 1266},
	{name: "a record of the same epoch is learned (< for <=)", rule: ha.MutantLearnSameEpoch, want: stuck + "|" + twice + "|" + lost},
	{name: "bound by an announcement, not by the guard", rule: ha.MutantArmAtOnce, want: twice},
	{name: "witness removed in one step", rule: ha.MutantForeverAtOnce, want: twice},
	{name: "tombstone dropped before all voters know", rule: ha.MutantBuryEarly, mode: ha.ModeWitness, mix: removal, want: "it was removed|" + twice},
	{name: "handover without a new epoch", rule: ha.MutantHandoverKeepsEpoch, want: stuck + "|" + twice},
	{name: "promotion without a new epoch", rule: ha.MutantSeizeKeepsEpoch, want: twice},
	{name: "an operator's order breaks leases", rule: ha.MutantForceBreaksLeases, mode: ha.ModeWitness, wrong: true, want: twice, seed: 1538},
	{name: "no wait after a cold start", rule: ha.MutantNoColdStartWait, duels: true, want: twice},
	{name: "owner goes on alone after a start, mode fence", rule: ha.MutantFencedColdStart, mode: ha.ModeFence, duels: true, want: twice},
	{name: "a shot counts without confirmation", rule: ha.MutantUnconfirmedShot, mode: ha.ModeFence, want: twice + "|" + lost},
	{name: "a failed store is trusted", rule: ha.MutantNoDistrust, want: stuck + "|" + untrue},
}

var onlyMutant = flag.String("ha.mutant", "", "hunt only mutants whose name holds this")

// mostSchedules is how many a mutant may live.
const mostSchedules = 4000

// TestMutants breaks one rule at a time and demands that the simulator notices.
// A simulator that cannot fail proves nothing.
func TestMutants(t *testing.T) {
	if underRace {
		t.Skip("takes minutes under the race detector; make sim runs it without")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1600))
	begin := time.Now()
	took := make([]string, len(mutations))
	limit := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wait sync.WaitGroup
	for i := range mutations {
		if !strings.Contains(mutations[i].name, *onlyMutant) {
			continue
		}
		wait.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			took[i] = mutations[i].hunt(t)
		})
	}
	wait.Wait()
	caught := 0
	for _, text := range took {
		if text != "" {
			caught++
			t.Log(text)
		}
	}
	t.Logf("mutants caught %d/%d in %v", caught, len(mutations), time.Since(begin).Round(time.Millisecond))
}

// hunt plays schedules until the mutant is caught, and says by which: the one that
// has caught it before, or if the rules have changed since the first that does.
func (m *mutation) hunt(t *testing.T) string {
	for n := range uint64(mostSchedules + 1) {
		seed := n
		if n == 0 {
			seed = m.seed
		}
		if seed == 0 {
			continue
		}
		_, err := sim.Run(m.options(seed, true))
		if err == nil {
			continue
		}
		text := strings.SplitN(err.Error(), "\n", 2)[0]
		if !m.expected(text) {
			t.Errorf("%s: %s: not what such a mutant does, want %q", m.name, text, m.want)
			return ""
		}
		if _, err := sim.Run(m.options(seed, false)); err != nil {
			t.Errorf("%s: its schedule fails without it, too: %v", m.name, err)
			return ""
		}
		return fmt.Sprintf("%-55s schedule %4d: %s", m.name, seed, text)
	}
	t.Errorf("%s: not noticed in %d schedules", m.name, mostSchedules)
	return ""
}

func (m *mutation) options(seed uint64, broken bool) sim.Options {
	opt := sim.Options{Seed: seed, Mode: m.mode, Duels: m.duels, Careless: m.wrong, Mix: m.mix}
	if broken {
		opt.Prepare = func(c *ha.Core) { c.LeaveOut(m.window); c.Mutate(m.rule | m.node) }
		opt.PrepareWitness = func(w *ha.Witness) { w.LeaveOut(m.window); w.Mutate(m.rule | m.witness) }
	}
	return opt
}

func (m *mutation) expected(text string) bool {
	for _, part := range strings.Split(m.want, "|") {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
