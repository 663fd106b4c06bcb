package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestOwnerDiskFull fills the owner's disk: the guest stands still rather than
// lose a write, its user is told, and it goes on once there is room.
func TestOwnerDiskFull(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.A.FillDisk())
	b.alarm(b.A, "disk-error", true)
	v, err := b.A.Show(t.Context())
	b.must(err)
	if v.State != "io-error" {
		t.Errorf("the guest is %s", v.State)
	}
	before := left(t, b.Lab)
	_, err = b.A.CLI(t.Context(), "vm", "create", "other", "--disk", "size=10M,preallocate=true")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a guest made on a full disk: %v", err)
	}
	if after := left(t, b.Lab); !slices.Equal(before, after) {
		t.Errorf("it left something: files before %v, after %v", before, after)
	}
	b.must(b.A.Free())
	stopped, _, _ := b.recorder.Last()
	_, err = b.A.CLI(t.Context(), "vm", "unpause", lab.GuestName)
	b.must(err)
	b.goesOn(stopped)
	b.alarm(b.A, "disk-error", false)
	b.takenOver()
}

// TestStandbyDiskFull fills the standby's disk: the guest goes on unprotected,
// and is protected again once there is room.
func TestStandbyDiskFull(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.B.FillDisk())
	b.alarm(b.A, "unprotected", true)
	b.alarm(b.B, "disk-low", true)
	// The write that was not taken outdates the replica; that the link has ended, and
	// why, another goroutine tells.
	v, err := b.A.WaitState(t.Context(), 20*time.Second, func(v api.VM) error {
		if v.Replica == nil || v.Replica.State == "synced" || !strings.Contains(v.Replica.Reason, "no space") {
			return fmt.Errorf("the replica is said to be %+v", v.Replica)
		}
		return nil
	})
	b.must(err)
	if strings.Contains(v.Replica.Reason, "\n") {
		t.Errorf("the reason has several lines: %q", v.Replica.Reason)
	}
	before, _, _ := b.recorder.Last()
	b.goesOn(before)
	b.must(b.B.Free())
	b.synced(b.A)
	b.alarm(b.A, "unprotected", false)
	b.alarm(b.B, "disk-low", false)
	b.takenOver()
}

// TestLinkPulledInResync takes the cable away while the replica of a returned
// node is being filled: it does not count meanwhile, and is filled once the cable
// is back.
func TestLinkPulledInResync(t *testing.T) {
	b := sharedBench(t, resumed)
	b.powerCut(b.B)
	b.must(b.B.Slow(t.Context(), 4_000_000)) // its memory takes a minute
	b.must(b.B.PowerOn(t.Context()))
	resync := func(v api.VM) error {
		if v.Replica == nil || v.Replica.State != "resync" {
			return fmt.Errorf("the replica is said to be %+v", v.Replica)
		}
		return nil
	}
	_, err := b.A.WaitState(t.Context(), 20*time.Second, resync)
	b.must(err)
	before, _, _ := b.recorder.Last()
	b.must(b.B.Unplug(t.Context()))
	b.alarm(b.A, "unprotected", true)
	b.goesOn(before)
	b.must(b.Heal(t.Context()))
	b.synced(b.A)
	b.takenOver()
}

// goesOn waits until the guest has worked on for a second.
func (b *bench) goesOn(from lab.Proof) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		if now, _, _ := b.recorder.Last(); now.Counter < from.Counter+lab.Rate || now.Token != from.Token {
			return fmt.Errorf("the guest stands still: counter %d, then %d", from.Counter, now.Counter)
		}
		return nil
	}))
}

// takenOver cuts a's power once the guest is protected, and sees it go on on b. What
// a raised is over by then, or its next agent would not know for half a minute.
func (b *bench) takenOver() {
	b.t.Helper()
	b.alarm(b.A, "rpo-exceeded", false)
	b.synced(b.A)
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}
