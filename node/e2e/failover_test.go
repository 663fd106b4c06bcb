package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestPowerCutAtRandomMoments cuts the owner's power again and again, there and
// back: each time the other host goes on with the same guest. Stopped in the end, it
// is not started by another cut.
func TestPowerCutAtRandomMoments(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--disk", "size=16M,format=qcow2")
	owner, other := b.A, b.B
	for round := range 10 {
		v := b.synced(owner)
		wait := time.Duration(rand.Int64N(int64(2 * time.Second)))
		time.Sleep(wait)
		cut := time.Now()
		b.must(owner.PowerCut(t.Context()))
		before, _, _ := b.recorder.Last()
		stint := b.resumed(other, cut)
		lost := float64(int64(before.Counter)-int64(stint.From)+1) / lab.Rate
		t.Logf("round %d: cut %v after sync, resumed after %.2f s, %.2f s of work lost, checkpoint %d", round, wait.Round(time.Millisecond),
			stint.First.Sub(cut).Seconds(), lost, v.Checkpoint.Sequence)
		b.atRest(owner)
		b.must(owner.PowerOn(t.Context()))
		owner, other = other, owner
	}
	b.synced(owner)
	_, err := owner.CLI(t.Context(), "vm", "stop", lab.GuestName, "--timeout", "20s")
	b.must(err)
	b.atRest(owner)
	b.atRest(other)
	b.staysStopped()
}

// TestAgentKilled kills the owner's agent: the guest does not notice, and
// replication goes on with the next agent.
func TestAgentKilled(t *testing.T) {
	b := sharedBench(t, resumed)
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	before := b.synced(b.A)
	b.killAgent(b.A)
	b.must(b.A.StartAgent(t.Context()))
	v := b.synced(b.A)
	if v.PID != pid || v.Owner != b.A.Name || v.Epoch != before.Epoch {
		t.Errorf("the guest was not left alone: process %d, now %d, owner %s, epoch %d", pid, v.PID, v.Owner, v.Epoch)
	}
	if v.Checkpoint.Sequence <= before.Checkpoint.Sequence {
		t.Errorf("checkpoint %d before the kill, %d after", before.Checkpoint.Sequence, v.Checkpoint.Sequence)
	}
	if stints := b.recorder.Stints(); len(stints) != 1 {
		t.Errorf("the guest was seen to change: %+v", stints)
	}
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}

// TestQEMUKilled kills QEMU: the guest is started again by its policy, on the
// same host.
func TestQEMUKilled(t *testing.T) {
	b := sharedBench(t, resumed)
	b.longRecovered()
	killed := time.Now()
	b.must(syscall.Kill(b.A.QEMU(t.Context(), b.vm.UUID), syscall.SIGKILL))
	stint, err := b.recorder.WaitOn(t.Context(), b.A.Name, killed, time.Minute)
	b.must(err)
	if stint.Token == b.first.Token {
		t.Error("the guest was not booted anew")
	}
	v := b.synced(b.A)
	if v.Owner != b.A.Name || v.Restarts != b.vm.Restarts+1 {
		t.Errorf("owner %s, %d restarts after %d", v.Owner, v.Restarts, b.vm.Restarts)
	}
	b.event(b.A, "guest-restart")
}

// longRecovered waits until a recovery of the guest is so long past that an end of
// its QEMU does not count as the recovery's.
func (b *bench) longRecovered() {
	const stable = 10 * time.Second
	time.Sleep(time.Until(b.recovered.Add(stable + time.Second)))
}

// TestWitnessLost takes the witness away: guests run on, an alarm is raised and
// ends when it is back.
func TestWitnessLost(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.W.PowerCut(t.Context()))
	b.alarm(b.A, "witness-lost", true)
	time.Sleep(3 * time.Second) // longer than a lease
	b.synced(b.A)
	b.must(b.W.PowerOn(t.Context()))
	b.alarm(b.A, "witness-lost", false)
	if stints := b.recorder.Stints(); len(stints) != 1 || stints[0].Node != b.A.Name {
		t.Errorf("the guest was seen to change: %+v", stints)
	}
}

// TestCableCut cuts the link between the nodes; the witness is reachable from
// both. The owner goes on, the other never starts the guest.
func TestCableCut(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.alarm(b.A, "peer-lost", true)
	time.Sleep(4 * time.Second) // past lease and window
	v, err := b.A.Show(t.Context())
	b.must(err)
	if v.State != "running" || v.Epoch != b.vm.Epoch {
		t.Errorf("on a: %s, epoch %d", v.State, v.Epoch)
	}
	if pid := b.B.QEMU(t.Context(), b.vm.UUID); pid != 0 {
		t.Errorf("b has a QEMU of the guest, process %d", pid)
	}
	b.told(b.A, "peer-lost", "on")
	b.told(b.A, "unprotected", "on")
	b.must(b.Heal(t.Context()))
	b.synced(b.A)
	b.told(b.A, "peer-lost", "off")
	b.told(b.A, "unprotected", "off")
	if stints := b.recorder.Stints(); len(stints) != 1 {
		t.Errorf("the guest was seen to change: %+v", stints)
	}
}

// TestOwnerSuspended stops the owner's agent with its links cut: the guard
// freezes the guest, b takes over, and a does not run it when it wakes.
func TestOwnerSuspended(t *testing.T) {
	b := sharedBench(t, resumed)
	stopped := time.Now()
	b.must(b.A.Signal(syscall.SIGSTOP))
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.resumed(b.B, stopped)
	if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid == 0 {
		t.Error("a's QEMU is gone although nobody could have ended it")
	}
	b.must(b.A.Signal(syscall.SIGCONT))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
			return fmt.Errorf("process %d still runs on a", pid)
		}
		return nil
	}))
	b.must(b.Heal(t.Context()))
	b.synced(b.B)
}

// TestOwnerAgentDies kills the owner's agent for longer than a lease: the guard
// freezes the guest, b takes over. The next agent ends the old copy and leaves
// nothing of it but the guard's lock.
func TestOwnerAgentDies(t *testing.T) {
	b := sharedBench(t, resumed)
	b.withoutStandby()
	killed := b.killAgent(b.A)
	b.resumed(b.B, killed)
	b.must(b.A.StartAgent(t.Context()))
	b.synced(b.B)
	if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
		t.Errorf("process %d still runs on a", pid)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(b.A.Socket()), "g", b.vm.UUID[:8], "*"))
	b.must(err)
	if len(left) != 1 || filepath.Base(left[0]) != "guard.sock.lock" {
		t.Errorf("a keeps %v", left)
	}
}

// TestGuardStopped stops the guard and cuts the owner off: the guard cannot
// freeze the guest, so the agent, which holds QEMU's pidfd too, ends it.
func TestGuardStopped(t *testing.T) {
	b := sharedBench(t, resumed)
	guard, err := lab.Parent(b.A.QEMU(t.Context(), b.vm.UUID))
	b.must(err)
	b.must(syscall.Kill(guard, syscall.SIGSTOP))
	cut := time.Now()
	b.must(b.A.Unplug(t.Context()))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
			return fmt.Errorf("process %d still runs on a", pid)
		}
		return nil
	}))
	b.resumed(b.B, cut)
	b.must(b.A.Plug(t.Context()))
	b.synced(b.B)
	if err := syscall.Kill(guard, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the stopped guard, process %d, is still there: %v", guard, err)
	}
}

// TestIsolationStop leaves the owner of a guest, whose isolation is stop, without
// peer and witness: QEMU is ended when the lease is, and the guest booted when the
// peer is back.
func TestIsolationStop(t *testing.T) {
	b := sharedBench(t, resumed)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--isolation", "stop")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--isolation", "freeze")
	b.must(b.W.PowerCut(t.Context()))
	b.must(b.A.Unplug(t.Context()))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
			return fmt.Errorf("process %d still runs on a", pid)
		}
		return nil
	}))
	back := time.Now()
	b.must(b.A.Plug(t.Context()))
	stint, err := b.recorder.WaitOn(t.Context(), b.A.Name, back, time.Minute)
	b.must(err)
	if stint.Token == b.first.Token {
		t.Error("the guest was not booted anew")
	}
	v := b.synced(b.A)
	if v.Owner != b.A.Name || v.Epoch != b.vm.Epoch || v.Restarts != b.vm.Restarts {
		t.Errorf("owner %s, epoch %d (it was %d), %d restarts", v.Owner, v.Epoch, b.vm.Epoch, v.Restarts)
	}
	b.event(b.A, "guest-isolated")
	b.must(b.W.PowerOn(t.Context()))
}

// atRest looks at the guest's disks on a host where it does not run.
func (b *bench) atRest(h *lab.Host) {
	b.t.Helper()
	found, err := h.VerifyDisks(b.t.Context(), b.vm.UUID)
	b.must(err)
	b.t.Logf("the guest's disks at rest on %s: %s", h.Name, found)
}

// TestGuardStoppedAgentKilled stops the guard, kills the agent, which held QEMU
// too, and cuts the owner off: the next agent ends the guest before b may run it.
func TestGuardStoppedAgentKilled(t *testing.T) {
	b := sharedBench(t, resumed)
	guard, err := lab.Parent(b.A.QEMU(t.Context(), b.vm.UUID))
	b.must(err)
	b.must(syscall.Kill(guard, syscall.SIGSTOP))
	cut := b.killAgent(b.A)
	b.must(b.A.Unplug(t.Context()))
	b.must(b.A.StartAgent(t.Context()))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
			return fmt.Errorf("process %d still runs on a", pid)
		}
		return nil
	}))
	b.event(b.A, "guard-stuck")
	b.resumed(b.B, cut)
	b.must(b.A.Plug(t.Context()))
	b.synced(b.B)
}

// event fails the test unless a host's log has an event of the kind.
func (b *bench) event(h *lab.Host, kind string) {
	b.t.Helper()
	found := false
	err := h.API().Events(b.t.Context(), api.EventFilter{Since: b.began}, func(e api.Event) error {
		found = found || e.Kind == kind
		return nil
	})
	b.must(err)
	if !found {
		b.t.Errorf("no event %q on %s", kind, h.Name)
	}
}

// alarm waits until an alarm is raised, or over. What some are about is looked at
// every 20 s only.
func (b *bench) alarm(h *lab.Host, kind string, on bool) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 45*time.Second, func() error {
		status, err := h.API().Status(b.t.Context())
		if err != nil {
			return err
		}
		raised := false
		for _, a := range status.Node.Alarms {
			raised = raised || a.Kind == kind
		}
		if raised != on {
			return errors.New("alarm " + kind + " is not as it should be")
		}
		return nil
	}))
}
