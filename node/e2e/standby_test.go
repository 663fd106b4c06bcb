package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// standby waits until a QEMU waits on b to take the guest, as both nodes say.
func (b *bench) standby(owner, waits *lab.Host) {
	b.t.Helper()
	_, err := owner.WaitState(b.t.Context(), 20*time.Second, func(v api.VM) error {
		if v.Replica == nil || v.Replica.Standby != api.StandbyReady {
			return fmt.Errorf("no standby: %+v", v.Replica)
		}
		if !waits.Waits(b.t.Context(), b.vm.UUID) {
			return fmt.Errorf("%s has no standby", waits.Name)
		}
		return nil
	})
	b.must(err)
}

// message is the text of a host's last event of a kind.
func (b *bench) message(h *lab.Host, kind string) (text string) {
	b.t.Helper()
	b.must(h.API().Events(b.t.Context(), api.EventFilter{}, func(e api.Event) error {
		if e.Kind == kind {
			text = e.Message
		}
		return nil
	}))
	return text
}

// TestPowerCutWithStandby cuts the owner's power, there and back: the guest goes
// on in the QEMU that waited, and the next one waits on the other host.
func TestPowerCutWithStandby(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--disk", "size=16M,format=qcow2")
	owner, other := b.A, b.B
	for range 3 {
		b.synced(owner)
		b.standby(owner, other)
		waited := other.Process(t.Context(), b.vm.UUID)
		cut := time.Now()
		b.must(owner.PowerCut(t.Context()))
		stint := b.resumed(other, cut)
		if now := other.QEMU(t.Context(), b.vm.UUID); now != waited {
			t.Errorf("process %d waited on %s, %d has the guest", waited, other.Name, now)
		}
		said := b.message(other, "guest-resumed")
		if !strings.Contains(said, "by its standby") {
			t.Errorf("%s says: %s", other.Name, said)
		}
		t.Logf("back after %v; %s", stint.First.Sub(cut).Round(time.Millisecond), said)
		b.atRest(owner)
		b.must(owner.PowerOn(t.Context()))
		owner, other = other, owner
	}
}

// TestPowerCutWithoutStandby has none, because the guest's spec says so.
func TestPowerCutWithoutStandby(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--standby=false")
	v := b.synced(b.A)
	if v.Replica.Standby != api.StandbyOff || b.B.Process(t.Context(), b.vm.UUID) != 0 {
		t.Errorf("a standby although there is to be none: %+v", v.Replica)
	}
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
	if said := b.message(b.B, "guest-resumed"); !strings.Contains(said, "started for it") || !strings.Contains(said, "standby: false") {
		t.Errorf("b says: %s", said)
	}
}

// TestStandbyDies kills the standby: the next one waits soon, and ends with the
// agent. Meanwhile the guest runs on undisturbed.
func TestStandbyDies(t *testing.T) {
	b := newBench(t, "--protection", "resume")
	b.standby(b.A, b.B)
	first := b.B.Process(t.Context(), b.vm.UUID)
	b.must(syscall.Kill(first, syscall.SIGKILL))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if now := b.B.Process(t.Context(), b.vm.UUID); now == first || now == 0 || !b.B.Waits(t.Context(), b.vm.UUID) {
			return fmt.Errorf("process %d waited, now %d does", first, now)
		}
		return nil
	}))
	b.event(b.B, "standby-failed")
	b.must(b.B.Signal(syscall.SIGTERM))
	<-b.B.Gone()
	if pid := b.B.Process(t.Context(), b.vm.UUID); pid != 0 {
		t.Errorf("the agent has ended, its standby, process %d, has not", pid)
	}
	b.must(b.B.StartAgent(t.Context()))
	b.synced(b.A)
	b.standby(b.A, b.B)
	b.must(b.B.KillAgent()) // its standby stays and is the next agent's to end
	left := b.B.Process(t.Context(), b.vm.UUID)
	b.must(b.B.StartAgent(t.Context()))
	b.synced(b.A)
	b.standby(b.A, b.B)
	if now := b.B.Process(t.Context(), b.vm.UUID); now == left {
		t.Errorf("process %d of the killed agent still waits", now)
	}
	if said := b.message(b.B, "process-ended"); said != "" {
		t.Errorf("a standby was taken for a guest: %s", said)
	}
	if stints := b.recorder.Stints(); len(stints) != 1 {
		t.Errorf("the guest was seen to change: %+v", stints)
	}
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
}
