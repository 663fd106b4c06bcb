package sim

import "time"

// Stats count what runs went through, to show that they went through something.
type Stats struct {
	Runs, Steps, Faults, FewestFaults                                          int
	TakeOvers, Promotions, Handovers, Yields, Detached, Attached               int
	Claims, Refusals, PersistFailures, Starts, Freezes, Rebinds                int
	Checkpoints, Resumes, Restarts, GuardStops, AgentKills, Suspensions, Shots int
	LongestOutage, LongestHealing                                              time.Duration
	Kinds                                                                      map[Kind]int // faults by kind
}

// Add sums counters.
func (s *Stats) Add(o Stats) {
	if s.Runs == 0 || o.Faults < s.FewestFaults {
		s.FewestFaults = o.Faults
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
