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
		if err := lab.Covered(v); err != nil {
			return err
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
	b.must(h.API().Events(b.t.Context(), api.EventFilter{Since: b.began}, func(e api.Event) error {
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
	b := sharedBench(t, resumed)
	b.withoutStandby()
	v := b.synced(b.A)
	if v.Replica.Standby != api.StandbyOff || b.B.Process(t.Context(), b.vm.UUID) != 0 {
		t.Errorf("a standby although there is to be none: %+v", v.Replica)
	}
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
	if said := b.message(b.B, "guest-resumed"); !strings.Contains(said, "started for it") || !strings.Contains(said, "standby: false") {
		t.Errorf("b says: %s", said)
	}
}

// TestStandbyDies kills the standby: the next one waits soon, and ends with the
// agent. Meanwhile the guest runs on undisturbed.
func TestStandbyDies(t *testing.T) {
	b := sharedBench(t, resumed)
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
	b.killAgent(b.B) // its standby stays and is the next agent's to end
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
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}

// withoutStandby has the peer keep no standby, until the test is over.
func (b *bench) withoutStandby() {
	b.t.Helper()
	_, err := b.A.CLI(b.t.Context(), "vm", "set", lab.GuestName, "--standby=false")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--standby")
	_, err = b.A.WaitState(b.t.Context(), 20*time.Second, func(v api.VM) error {
		if v.Replica == nil || v.Replica.Standby != api.StandbyOff || b.B.Process(b.t.Context(), b.vm.UUID) != 0 {
			return fmt.Errorf("a standby although there is to be none: %+v", v.Replica)
		}
		return nil
	})
	b.must(err)
}

// anotherStandby makes the standby on b one that does not load the guest.
func (b *bench) anotherStandby() {
	b.t.Helper()
	b.standby(b.A, b.B)
	first := b.B.Process(b.t.Context(), b.vm.UUID)
	b.must(b.B.SetAnother(true))
	b.must(syscall.Kill(first, syscall.SIGKILL))
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		if now := b.B.Process(b.t.Context(), b.vm.UUID); now == 0 || now == first || !b.B.Waits(b.t.Context(), b.vm.UUID) {
			return fmt.Errorf("process %d waited, now %d does", first, now)
		}
		return nil
	}))
}

// TestStandbyRefusesState has a standby that does not load the state: a QEMU
// started anew goes on from the same checkpoint.
func TestStandbyRefusesState(t *testing.T) {
	b := sharedBench(t, resumed)
	b.anotherStandby()
	b.must(b.B.SetAnother(false))
	b.synced(b.A)
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
	b.fellBack("load the device state")
}

// TestStandbyHangs stops the standby, which is noticed only when it is to be used.
func TestStandbyHangs(t *testing.T) {
	b := sharedBench(t, resumed)
	b.hangs(b.B.Process(t.Context(), b.vm.UUID))
}

// TestStandbysGuardHangs stops the standby's guard.
func TestStandbysGuardHangs(t *testing.T) {
	b := sharedBench(t, resumed)
	guard, err := lab.Parent(b.B.Process(t.Context(), b.vm.UUID))
	b.must(err)
	b.hangs(guard)
}

// hangs stops a process of the standby, and has the guest taken over.
func (b *bench) hangs(pid int) {
	b.t.Helper()
	b.heardOut(b.A)
	b.must(syscall.Kill(pid, syscall.SIGSTOP))
	cut := time.Now()
	b.must(b.A.PowerCut(b.t.Context()))
	b.resumed(b.B, cut)
	b.fellBack("context deadline exceeded")
}

// fellBack checks that b went on without its standby, and says why.
func (b *bench) fellBack(because string) {
	b.t.Helper()
	failed, resumed := b.message(b.B, "standby-failed"), b.message(b.B, "guest-resumed")
	if !strings.Contains(failed, because) || !strings.Contains(resumed, "started for it") || !strings.Contains(resumed, because) {
		b.t.Errorf("b says: %s; %s", failed, resumed)
	}
	why, err := b.B.CLI(b.t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if !strings.Contains(why, because) {
		b.t.Errorf("the reason %q is not in: %s", because, why)
	}
}

// TestStateRefused has a QEMU on b that does not load a's states at all, neither
// the last nor the one before it: the guest is booted from its disks, and the reasons stand in ha why.
func TestStateRefused(t *testing.T) {
	b := sharedBench(t, resumed)
	b.anotherStandby()
	b.synced(b.A)
	cut := b.powerCut(b.A)
	stint, err := b.recorder.WaitOn(t.Context(), b.B.Name, cut, time.Minute)
	b.must(err)
	if stint.Token == b.first.Token {
		t.Error("the guest cannot have kept its memory")
	}
	found, err := b.B.VerifyRunning(t.Context(), b.vm.UUID)
	b.must(err)
	t.Logf("the guest's disks on b: %s", found)
	why, err := b.B.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	for _, kind := range []string{"standby-failed", "checkpoint-failed", "resume-failed"} {
		if said := b.message(b.B, kind); !strings.Contains(said, "load the device state") || !strings.Contains(why, kind) {
			t.Errorf("%s: %s; ha why: %s", kind, said, why)
		}
	}
	b.must(b.B.SetAnother(false))
	_, err = b.B.CLI(t.Context(), "vm", "stop", lab.GuestName, "--timeout", "20s") // what it booted in must not stay
	b.must(err)
}

// TestCheckpointBefore has a newest checkpoint on b whose device state is garbage:
// the guest goes on from the one before it, with its memory and its disks.
func TestCheckpointBefore(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--disk", "size=16M,format=qcow2")
	b.standby(b.A, b.B)
	_, err := b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now().Add(2*time.Second)))
	b.must(err)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.must(b.B.KillAgent())
	spoiled, err := b.B.SpoilCheckpoint(b.vm.UUID)
	b.must(err)
	b.must(b.B.StartAgent(t.Context()))
	b.resumed(b.B, cut)
	said, failed := b.message(b.B, "guest-resumed"), b.message(b.B, "checkpoint-failed")
	if why := fmt.Sprintf("checkpoint %d was not usable: load the device state", spoiled); !strings.Contains(said, "the one before the last") ||
		!strings.Contains(said, why) || !strings.Contains(failed, why) {
		t.Errorf("b says: %s; %s", said, failed)
	}
	why, err := b.B.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if !strings.Contains(why, "checkpoint-failed") {
		t.Errorf("it is not in: %s", why)
	}
	t.Log(said)
}
