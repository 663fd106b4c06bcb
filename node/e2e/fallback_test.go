package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestPromotedInAResync cuts the owner's power in the middle of a resync: nobody
// takes the guest over by itself, and an operator who orders it gets the disks as
// they were before the resync, not those that it had half made.
func TestPromotedInAResync(t *testing.T) {
	b := sharedBench(t, restarted)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--resync-rate", "1M")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--resync-rate", "1G")
	b.must(b.Cut(t.Context(), b.A, b.B))
	lost := time.Now()
	b.writesAlone(0)
	_, err = b.A.CLI(t.Context(), "vm", "kill", lab.GuestName) // after that all of its disk is compared: a minute
	b.must(err)
	_, err = b.A.CLI(t.Context(), "vm", "start", lab.GuestName)
	b.must(err)
	b.must(b.Heal(t.Context()))
	for _, h := range []*lab.Host{b.A, b.B} {
		v, err := h.WaitState(t.Context(), 30*time.Second, func(v api.VM) error {
			r := v.Replica
			switch {
			case r == nil || r.Fallback == nil || r.Fallback.To != api.FallbackDisks || r.Fallback.Bytes < 4<<10:
				return fmt.Errorf("the replica is %+v", r)
			case h == b.A && (r.State != "resync" || r.Resync == nil || r.Resync.SentBytes == 0):
				return errors.New("no resync has sent anything")
			}
			return nil
		})
		b.must(err)
		if f := v.Replica.Fallback; f.Time.After(lost.Add(5*time.Second)) || *f.AgeSeconds < 0 || *f.AgeSeconds > time.Since(f.Time.Time).Seconds()+1 {
			t.Errorf("%s says of the fallback: %+v, the way was lost at %v", h.Name, f, lost)
		}
	}
	out, err := b.A.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if !strings.Contains(out, "it would begin from the disks as they were before the resync") {
		t.Errorf("ha why: %s", out)
	}
	b.powerCut(b.A)
	b.notTaken()
	_, err = b.B.CLI(t.Context(), "ha", "promote", lab.GuestName, "--confirm-peer-off")
	b.must(err)
	_, err = b.WaitAnswer(t.Context(), time.Minute)
	b.must(err)
	found, err := b.B.VerifyRunning(t.Context(), b.vm.UUID)
	b.must(err)
	t.Logf("the guest's disks on b: %s", found)
	events, err := b.B.CLI(t.Context(), "events")
	b.must(err)
	if !strings.Contains(events, "disks-set-back") {
		t.Errorf("no event says that the disks were set back: %s", events)
	}
}

// TestPromotedAfterAHandover cuts the new owner's power before what it has written
// since a handover is back on the former owner: an operator who orders that one to go
// on gets the disks as they were handed over.
func TestPromotedAfterAHandover(t *testing.T) {
	b := sharedBench(t, restarted)
	b.synced(b.A)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--resync-rate", "1M")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--resync-rate", "1G")
	began := time.Now()
	for _, maintenance := range []string{"on", "off"} {
		_, err = b.A.CLI(t.Context(), "node", "maintenance", maintenance)
		b.must(err)
	}
	given := time.Now()
	_, err = b.recorder.WaitOn(t.Context(), b.B.Name, began, time.Minute)
	b.must(err)
	v, err := b.B.WaitState(t.Context(), 30*time.Second, func(v api.VM) error {
		r := v.Replica
		if r == nil || r.State != "resync" || r.Fallback == nil || r.Fallback.To != api.FallbackDisks || r.Fallback.Bytes == 0 {
			return fmt.Errorf("the replica is %+v, %+v", r, r.Fallback)
		}
		return nil
	})
	b.must(err)
	if at := v.Replica.Fallback.Time.Time; at.Before(began) || at.After(given) {
		t.Errorf("it could go back to %v, the guest was given away from %v to %v", at, began, given)
	}
	b.powerCut(b.B)
	cut := time.Now()
	b.swap()
	b.notTaken()
	b.swap()
	_, err = b.A.CLI(t.Context(), "ha", "promote", lab.GuestName, "--confirm-peer-off")
	b.must(err)
	_, err = b.recorder.WaitOn(t.Context(), b.A.Name, cut, time.Minute)
	b.must(err)
	proof, err := b.WaitAnswer(t.Context(), 10*time.Second)
	b.must(err)
	if proof.Boots != b.first.Boots+1 || proof.Broken { // the boot on b is not in these disks
		t.Errorf("first %+v, promoted %+v", b.first, proof)
	}
	found, err := b.A.VerifyRunning(t.Context(), b.vm.UUID)
	b.must(err)
	t.Logf("the guest's disks on a: %s", found)
	b.event(b.A, "disks-set-back")
}
