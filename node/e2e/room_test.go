package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestTooLittleMemory: an owner that has to leave more of its memory free than there
// is makes no copy of the guest's. The guest goes on unprotected, its user is told, and
// it is protected again when there is memory; also if the peer has no room for another
// image of it beside the one that is there.
func TestTooLittleMemory(t *testing.T) {
	b := sharedBench(t, resumed)
	again := func() {
		b.killAgent(b.A)
		b.must(b.A.StartAgent(t.Context()))
	}
	b.must(b.A.ConfigureMore(fmt.Sprintf("memory-reserve: %dM\n", memoryHere(t))))
	again()
	_, err := b.A.WaitState(t.Context(), 20*time.Second, func(v api.VM) error {
		if v.Replica == nil || v.Replica.State != "outdated" || !strings.Contains(v.Replica.Reason, "too little memory") {
			return fmt.Errorf("the replica is said to be %+v", v.Replica)
		}
		return nil
	})
	b.must(err)
	b.alarm(b.A, "unprotected", true)
	before, _, _ := b.recorder.Last()
	b.goesOn(before)

	b.must(b.Configure())
	b.must(b.B.LeaveRAM(16 << 20))
	began := time.Now()
	again()
	v, err := b.A.WaitState(t.Context(), 40*time.Second, lab.SyncedSince(began))
	b.must(err)
	b.saved = v
	b.alarm(b.A, "unprotected", false)
	out, err := b.B.CLI(t.Context(), "events", "--vm", lab.GuestName)
	if err != nil || !strings.Contains(out, "checkpoint-given-up") {
		t.Errorf("the peer says %s, %v", out, err)
	}
	b.must(b.B.Free())
	b.takenOver()
}

// TestFullMemoryDoesNotCostTheCheckpoint has a standby take over while there is no room
// for another page of memory: a QEMU that writes to one dies. It waits for room, and goes
// on from the last checkpoint.
func TestFullMemoryDoesNotCostTheCheckpoint(t *testing.T) {
	b := sharedBench(t, resumed)
	b.synced(b.A)
	killed := b.killAgent(b.A)
	b.must(b.B.FillRAM())
	b.recorded(b.B, "recovery-starts")
	time.Sleep(3 * time.Second) // it is tried again and again
	b.must(b.B.Free())
	b.resumed(b.B, killed)
	b.must(b.A.StartAgent(t.Context()))
	b.synced(b.B)
}
