package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Stats count what runs went through, to show that they went through something.
type Stats struct {
	Runs, Steps, Faults, FewestFaults                                          int
	TakeOvers, Promotions, Handovers, Yields, Detached, Attached               int
	Claims, Refusals, PersistFailures, Starts, Freezes, Rebinds                int
	Checkpoints, Resumes, Restarts, GuardStops, AgentKills, Suspensions, Shots int
	Orphans                                                                    int // orders to create that nobody confirmed
	LongestOutage, LongestHealing                                              time.Duration
	Kinds                                                                      map[Kind]int // faults by kind
}

// Add sums counters.
func (s *Stats) Add(o Stats) {
	if s.Runs == 0 || o.FewestFaults < s.FewestFaults {
		s.FewestFaults = o.FewestFaults
	}
	for _, n := range []struct {
		sum *int
		add int
	}{
		{&s.Runs, o.Runs}, {&s.Steps, o.Steps}, {&s.Faults, o.Faults},
		{&s.TakeOvers, o.TakeOvers}, {&s.Promotions, o.Promotions}, {&s.Handovers, o.Handovers},
		{&s.Yields, o.Yields}, {&s.Detached, o.Detached}, {&s.Attached, o.Attached},
		{&s.Claims, o.Claims}, {&s.Refusals, o.Refusals}, {&s.PersistFailures, o.PersistFailures},
		{&s.Starts, o.Starts}, {&s.Freezes, o.Freezes}, {&s.Rebinds, o.Rebinds},
		{&s.Checkpoints, o.Checkpoints}, {&s.Resumes, o.Resumes}, {&s.Restarts, o.Restarts},
		{&s.GuardStops, o.GuardStops}, {&s.AgentKills, o.AgentKills}, {&s.Suspensions, o.Suspensions}, {&s.Shots, o.Shots},
		{&s.Orphans, o.Orphans},
	} {
		*n.sum += n.add
	}
	s.LongestOutage = max(s.LongestOutage, o.LongestOutage)
	s.LongestHealing = max(s.LongestHealing, o.LongestHealing)
	if s.Kinds == nil {
		s.Kinds = map[Kind]int{}
	}
	for k, n := range o.Kinds {
		s.Kinds[k] += n
	}
}

// Report says in a few lines what was played.
func (s Stats) Report(violations int) string {
	text := fmt.Sprintf("%d schedules, %d faults (at least %d each), %d steps of the cores, %d violations\n",
		s.Runs, s.Faults, s.FewestFaults, s.Steps, violations)
	text += fmt.Sprintf("  %d takeovers (%d resumed, %d restarted), %d handovers, %d orders to promote, %d yields, %d claims, %d refused, %d shots\n",
		s.TakeOvers, s.Resumes, s.Restarts, s.Handovers, s.Promotions, s.Yields, s.Claims, s.Refusals, s.Shots)
	text += fmt.Sprintf("  %d replicas outdated, %d complete again, %d checkpoints, %d boots, %d thaws, %d changes of the mode, %d failed stores, %d creations in doubt\n",
		s.Detached, s.Attached, s.Checkpoints, s.Starts, s.Freezes, s.Rebinds, s.PersistFailures, s.Orphans)
	text += fmt.Sprintf("  %d guards stopped, %d guests killed by the agent for it; all was well at most %v after the faults\n",
		s.GuardStops, s.AgentKills, s.LongestHealing)
	kinds := slices.Sorted(maps.Keys(s.Kinds))
	text += "  faults:"
	for _, k := range kinds {
		text += fmt.Sprintf(" %s %d", k, s.Kinds[k])
	}
	return text + "\n"
}
