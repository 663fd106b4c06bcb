package ha_test

import (
	"strings"
	"testing"

	"vmctl/ha"
	"vmctl/ha/sim"
)

// TestMutants switches one rule off at a time and demands that the simulator
// notices. A simulator that cannot fail proves nothing.
func TestMutants(t *testing.T) {
	core := func(m ha.Mutant) func(*sim.Options) {
		return func(o *sim.Options) {
			o.Prepare = func(c *ha.Core) { c.Mutate(m) }
			o.PrepareWitness = func(w *ha.Witness) { w.Mutate(m) }
		}
	}
	const twice, lost = "and on node-", "was acknowledged"
	for name, c := range map[string]struct {
		change func(*sim.Options)
		want   []string
		duels  bool
	}{
		"lease counted from receipt":     {core(ha.MutantLeaseFromReceipt), []string{twice}, true},
		"agent enforces the deadline":    {func(o *sim.Options) { o.Broken.NoGuard = true }, []string{twice}, true},
		"witness forgets over a restart": {func(o *sim.Options) { o.Broken.ForgetfulVoter = true }, []string{twice, lost, "stores epoch", "after epoch"}, true},
		// Without the promise alone, the wait for own acknowledgements (quiet)
		// still prevents two copies; so both are switched off.
		"no promise before the claim":         {core(ha.MutantNoPromise | ha.MutantNoQuiet), []string{twice, lost}, true},
		"no restart wait":                     {core(ha.MutantNoRestartWait), []string{twice}, true},
		"renewals acknowledged after promise": {core(ha.MutantAckAfterPromise), []string{twice}, true},
		"replica not durably outdated":        {core(ha.MutantDetachAtOnce), []string{lost}, true},
		"witness removed in one step":         {core(ha.MutantForeverAtOnce), []string{twice}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 20000; seed++ {
				opt := sim.Options{Seed: seed, Mode: ha.ModeWitness, Duels: c.duels}
				c.change(&opt)
				_, err := sim.Run(opt)
				if err == nil {
					continue
				}
				for _, w := range c.want {
					if strings.Contains(err.Error(), w) {
						t.Logf("%v", err)
						return
					}
				}
			}
			t.Fatal("not noticed in 20000 schedules")
		})
	}
}
