package sim

import (
	"strings"
	"testing"

	"vmctl/ha"
)

// TestBrokenWorlds breaks what the protocol and the engine rest on, one thing at
// a time: each must show, or the checks see nothing. Some are what the product
// does not claim to survive (ha/DESIGN.md, Known limits): there, too, this is
// how we know.
func TestBrokenWorlds(t *testing.T) {
	if underRace {
		t.Skip("a world has one goroutine; the other build plays them")
	}
	const twice, lost = " and on node-", "was acknowledged"
	for name, c := range map[string]struct {
		broken Broken
		mode   ha.Mode
		duels  bool
		mix    []Kind
		want   []string
	}{
		"agent enforces the deadline":             {broken: Broken{NoGuard: true}, duels: true, want: []string{twice}},
		"witness forgets over a restart":          {broken: Broken{ForgetfulVoter: true}, mode: ha.ModeWitness, duels: true, want: []string{twice, lost, "stores epoch", "after epoch", "outdated"}},
		"guard and agent stopped together":        {broken: Broken{BothStopped: true}, mode: ha.ModeWitness, mix: []Kind{StopGuard, PauseAgent, CutLink}, want: []string{twice}},
		"guest before guard after a suspension":   {broken: Broken{LateGuard: true}, mode: ha.ModeWitness, mix: []Kind{Suspend, CrashAgent, CutLink}, want: []string{twice}},
		"voter's store loses writes":              {broken: Broken{LyingStore: true}, mode: ha.ModeWitness, mix: []Kind{LieStore, PowerOff, CutLink, HandOver}, want: []string{twice, lost, "after epoch", "now node-", "outdated", "checkpoint", "after healing"}},
		"clock jumps forward":                     {broken: Broken{WildClock: true}, mode: ha.ModeWitness, mix: []Kind{ClockJump, CutLink}, want: []string{twice, "after epoch"}},
		"checkpoint counts before it is complete": {broken: Broken{TornCheckpoint: true}, want: []string{"not complete"}},
		"disks are not rolled back":               {broken: Broken{MixedCheckpoint: true}, want: []string{"the disks of write"}},
		"number of a checkpoint is used again":    {broken: Broken{ReusedNumber: true}, want: []string{"again"}},
		"boot before the replica is outdated":     {broken: Broken{SilentBoot: true}, mix: []Kind{KillQEMU, PowerOff, CutLink, StopGuest}, want: []string{"void checkpoint", lost}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 2000; seed++ {
				opt := Options{Seed: seed, Broken: c.broken, Mode: c.mode, Duels: c.duels, Mix: c.mix}
				if _, err := Run(opt); err != nil {
					shows(t, err.Error(), c.want)
					opt.Broken = Broken{}
					if _, err := Run(opt); err != nil && !c.broken.LyingStore && !c.broken.WildClock {
						t.Errorf("the schedule fails in a sound world, too: %v", err)
					}
					return
				}
			}
			t.Fatal("not noticed in 2000 schedules")
		})
	}
}

func shows(t *testing.T, text string, want []string) {
	for _, w := range want {
		if strings.Contains(text, w) {
			t.Log(strings.SplitN(text, "\n", 2)[0])
			return
		}
	}
	t.Errorf("%s: not what a world broken like that does, want one of %q", text, want)
}
