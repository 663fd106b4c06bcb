package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// mode changes the third vote and waits until the guest lives under it.
func (b *bench) mode(leased bool, args ...string) {
	b.t.Helper()
	_, err := b.A.CLI(b.t.Context(), append([]string{"ha", "mode"}, args...)...)
	b.must(err)
	b.lives(leased, args[0])
}

// lives waits until the guest lives under a mode.
func (b *bench) lives(leased bool, mode string) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		for _, h := range []*lab.Host{b.A, b.B} {
			status, err := h.API().HA(b.t.Context())
			if err != nil || status.Mode != mode {
				return fmt.Errorf("%s has the mode %s: %w", h.Name, status.Mode, err)
			}
			if g := status.Guests[0]; g.Lease != nil && g.Lease.Required != leased {
				return errors.New("the guest does not live under it yet")
			}
		}
		return nil
	}))
}

// reconfigured restarts both agents; the guest runs on.
func (b *bench) reconfigured() {
	b.t.Helper()
	for _, h := range []*lab.Host{b.A, b.B} {
		b.killAgent(h)
		b.must(h.StartAgent(b.t.Context()))
	}
	b.synced(b.A)
}

// witnessed makes the witness the third vote again.
func (b *bench) witnessed() {
	b.t.Helper()
	if b.W.Off() {
		b.must(b.W.PowerOn(b.t.Context()))
	}
	b.must(b.AddWitness(b.t.Context()))
	b.lives(true, "witness")
}

// fenced gives both nodes fencing devices and makes them the third vote. There
// is no witness any more.
func (b *bench) fenced() {
	b.t.Helper()
	b.must(b.Fences())
	b.reconfigured()
	b.mode(false, "fence", "--delay", "4s")
	b.must(b.W.PowerCut(b.t.Context()))
}

// shots are what the fencing device was asked.
func (b *bench) shots() string {
	data, err := os.ReadFile(b.ShotLog())
	b.must(err)
	return string(data)
}

// TestFence has no witness but a device that switches a host off.
func TestFence(t *testing.T) {
	b := sharedBench(t, resumed)
	b.fenced()
	b.fenceCableCut()
	b.alarm(b.A, "rpo-exceeded", false) // or a's next agent would not know for half a minute
	b.must(os.Remove(b.ShotLog()))
	b.fenceTakeover()
	b.swap() // b has the guest
	b.must(b.Configure())
	b.reconfigured()
	b.witnessed()
}

// fenceTakeover: b switches a off with a fence agent before it takes the guest over,
// and a comes back as its standby.
func (b *bench) fenceTakeover() {
	t := b.t
	for _, h := range []*lab.Host{b.A, b.B} {
		out, err := h.CLI(t.Context(), "ha", "fence-check")
		b.must(err)
		if !strings.Contains(out, "is on") {
			t.Errorf("the device of %s: %s", h.Name, out)
		}
	}
	cut := time.Now()
	b.must(b.A.Signal(syscall.SIGSTOP)) // its guest runs on, but nobody hears the agent
	stint := b.resumed(b.B, cut)
	if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
		t.Errorf("a still has a QEMU, process %d", pid)
	}
	if shots := b.shots(); !strings.Contains(shots, "off "+b.A.Name) || strings.Contains(shots, "off "+b.B.Name) {
		t.Errorf("the device was asked:\n%s", shots)
	}
	t.Logf("the guest was back after %v", stint.First.Sub(cut).Round(time.Millisecond))
	b.must(b.A.PowerCut(t.Context())) // what the lab itself must clean up
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
}

// fenceCableCut cuts the cable between the nodes: the owner shoots first, its guest
// never stops, and the other one does not start it when it is back behind the cut
// cable.
func (b *bench) fenceCableCut() {
	t := b.t
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		if shots := b.shots(); !strings.Contains(shots, "off "+b.B.Name) {
			return fmt.Errorf("nobody shot:\n%s", shots)
		}
		return nil
	}))
	<-b.B.Gone()
	before, _, _ := b.recorder.Last()
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		if now, _, _ := b.recorder.Last(); now.Counter < before.Counter+3*lab.Rate {
			return fmt.Errorf("the guest stands still: counter %d, then %d", before.Counter, now.Counter)
		}
		return nil
	}))
	b.must(b.B.PowerCut(t.Context()))
	b.must(b.B.PowerOn(t.Context()))
	b.alarm(b.B, "peer-lost", true)
	time.Sleep(6 * time.Second) // its head start is over by now
	if shots := b.shots(); strings.Contains(shots, "off "+b.A.Name) {
		t.Errorf("b shot a without having heard it:\n%s", shots)
	}
	why, err := b.B.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if now := b.A.QEMU(t.Context(), b.vm.UUID); now != pid || b.B.QEMU(t.Context(), b.vm.UUID) != 0 {
		t.Errorf("process %d of a's guest became %d; b says: %s", pid, now, why)
	}
	b.must(b.Heal(t.Context()))
	b.synced(b.A)
}

// TestBias has no witness: b was chosen beforehand. It takes a's guest over, and
// when it is b that is silent, a's guest freezes instead.
func TestBias(t *testing.T) {
	b := sharedBench(t, resumed)
	b.mode(true, "bias", "--bias", b.B.Name)
	b.must(b.W.PowerCut(t.Context()))
	cut := b.powerCut(b.A)
	stint := b.resumed(b.B, cut)
	t.Logf("the guest was back after %v", stint.First.Sub(cut).Round(time.Millisecond))
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	began := time.Now()
	_, err := b.B.CLI(t.Context(), "node", "maintenance", "on")
	b.must(err)
	b.resumed(b.A, began)
	_, err = b.B.CLI(t.Context(), "node", "maintenance", "off")
	b.must(err)
	b.synced(b.A)
	b.mode(true, "bias", "--bias", b.B.Name)
	b.powerCut(b.B)
	_, err = b.A.WaitState(t.Context(), 20*time.Second, lab.InState("frozen"))
	b.must(err)
	b.alarm(b.A, "peer-lost", true)
	_, err = b.A.CLI(t.Context(), "ha", "promote", lab.GuestName, "--confirm-peer-off")
	b.must(err)
	_, err = b.A.WaitState(t.Context(), 20*time.Second, lab.InState("running"))
	b.must(err)
	b.must(b.B.PowerOn(t.Context()))
	b.synced(b.A)
	b.witnessed()
}
