package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// leaseTime is how long a guest runs without an acknowledged renewal; freezeBound
// is what the guard, and looking from outside, may take beyond.
const (
	leaseTime   = 2 * time.Second
	freezeBound = 300 * time.Millisecond
)

// TestAloneThenThawed cuts both links of the owner while nobody can take over:
// the guest is frozen at its deadline, and goes on where it was when the owner
// hears that it still is the owner. The host itself runs on all the time.
func TestAloneThenThawed(t *testing.T) {
	b := sharedBench(t, resumed)
	before := b.processes(b.A)
	b.must(b.B.Signal(syscall.SIGSTOP))
	b.frozenInTime(b.A)
	at, _, _ := b.recorder.Last()
	b.must(b.A.Plug(t.Context()))
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		if now, _, _ := b.recorder.Last(); now.Counter <= at.Counter || now.Token != at.Token {
			return fmt.Errorf("the guest stands still at counter %d", now.Counter)
		}
		return nil
	}))
	if stints := b.recorder.Stints(); len(stints) != 1 {
		t.Errorf("the guest was seen to change: %+v", stints)
	}
	if now := b.processes(b.A); now != before {
		t.Errorf("a's processes were %s, are %s", before, now)
	}
	b.must(b.B.Signal(syscall.SIGCONT))
	if v := b.synced(b.A); v.Epoch != b.vm.Epoch {
		t.Errorf("epoch %d, it was %d", v.Epoch, b.vm.Epoch)
	}
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}

// TestAloneThenYields cuts both links of the owner: the guest is frozen at its
// deadline, before the peer takes it over; once the owner hears of that it ends
// its copy and follows. The agent runs on all the time.
func TestAloneThenYields(t *testing.T) {
	b := sharedBench(t, resumed)
	agent := b.A.Agent().Pid
	cut := time.Now()
	b.frozenInTime(b.A)
	b.resumed(b.B, cut)
	if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid == 0 {
		t.Error("a ended the guest although it cannot know of the takeover")
	}
	b.must(b.A.Plug(t.Context()))
	b.must(lab.Eventually(t.Context(), 10*time.Second, func() error {
		if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
			return fmt.Errorf("process %d still runs on a", pid)
		}
		return nil
	}))
	b.synced(b.B)
	b.event(b.A, "guest-yielded")
	if now := b.A.Agent().Pid; now != agent {
		t.Errorf("a's agent was process %d, is %d", agent, now)
	}
}

// frozenInTime cuts all links of the guest's owner and sees it frozen at its
// deadline, every thread of it, and told to whoever asks.
func (b *bench) frozenInTime(h *lab.Host) {
	b.t.Helper()
	pid := b.A.QEMU(b.t.Context(), b.vm.UUID)
	b.must(h.Unplug(b.t.Context()))
	cut := time.Now()
	for looked := cut; !lab.Stopped(pid); time.Sleep(5 * time.Millisecond) {
		if looked.Sub(cut) > leaseTime+freezeBound {
			b.t.Fatalf("the guest still runs %v after the last renewal that can have been acknowledged", looked.Sub(cut))
		}
		looked = time.Now() // before the look: this process may stand still between them
	}
	b.t.Logf("frozen %v after the links were cut", time.Since(cut).Round(time.Millisecond))
	_, err := h.WaitState(b.t.Context(), 5*time.Second, lab.InState("frozen"))
	b.must(err)
	// The guard is punctual; that the lease is over the agent decides with its next tick.
	b.must(lab.Eventually(b.t.Context(), leaseTime, func() error {
		why, err := h.CLI(b.t.Context(), "ha", "why", lab.GuestName)
		if err == nil && !strings.Contains(why, "acknowledges the lease") {
			err = fmt.Errorf("%s does not say why: %s", h.Name, why)
		}
		return err
	}))
}

// processes names all that runs on a host.
func (b *bench) processes(h *lab.Host) string {
	b.t.Helper()
	list, err := h.Processes(b.t.Context())
	b.must(err)
	var words []string
	for _, p := range list {
		words = append(words, fmt.Sprintf("%d %s", p.PID, p.Args[0]))
	}
	return strings.Join(words, ", ")
}
