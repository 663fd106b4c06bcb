package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestAgentKilledWhileTakingOver kills the agent that takes a guest over within
// milliseconds of the guest's being put under the new epoch: before its disks are
// rolled back, before it is let go on, or right after. The next agent finishes what
// was begun, with the memory, whichever it was.
func TestAgentKilledWhileTakingOver(t *testing.T) {
	b := sharedBench(t, resumed)
	owner, other := b.A, b.B
	for round := range 4 {
		b.synced(owner)
		b.standby(owner, other)
		b.heardOut(owner)
		bound, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		claimed := make(chan error, 1)
		go func() { claimed <- other.Claimed(bound, b.vm.UUID) }()
		cut := time.Now()
		b.must(owner.PowerCut(t.Context()))
		b.must(<-claimed)
		cancel()
		wait := time.Duration(round) * time.Duration(rand.Int64N(int64(8*time.Millisecond)))
		time.Sleep(wait)
		b.must(other.KillAgent())
		b.must(other.StartAgent(t.Context()))
		stint := b.resumed(other, cut)
		t.Logf("round %d: killed %v after the claim, back %.2f s after the cut; %s%s%s", round, wait, stint.First.Sub(cut).Seconds(),
			b.message(other, "guest-resumed"), b.message(other, "guest-adopted"), b.message(other, "process-ended"))
		b.must(owner.PowerOn(t.Context()))
		owner, other = other, owner
	}
	b.synced(owner)
}
