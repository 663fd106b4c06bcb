package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestPeerSilent stops the peer's agent without closing anything: the guest's
// writes go on after the bound, the replica is outdated, and made whole when
// the peer is back.
func TestPeerSilent(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.B.Signal(syscall.SIGSTOP))
	before, _, _ := b.recorder.Last()
	_, err := b.A.WaitState(t.Context(), 20*time.Second, func(v api.VM) error {
		if v.Replica == nil || v.Replica.State == "synced" {
			return errors.New("the replica still counts")
		}
		return nil
	})
	b.must(err)
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		// Each step of the guest's work waits for its disk.
		if now, _, _ := b.recorder.Last(); now.Counter < before.Counter+3*lab.Rate {
			return fmt.Errorf("the guest stands still: counter %d, then %d", before.Counter, now.Counter)
		}
		return nil
	}))
	b.must(b.B.Signal(syscall.SIGCONT))
	b.synced(b.A)
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}

// TestOutdatedIsNotPromoted cuts the replication and later the owner's power:
// the peer's replica lacks acknowledged writes and is left alone.
func TestOutdatedIsNotPromoted(t *testing.T) {
	b := sharedBench(t, resumed)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.alarm(b.A, "unprotected", true)
	b.powerCut(b.A)
	b.notTaken()
	why, err := b.B.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if !strings.Contains(why, "lacks acknowledged writes") {
		t.Errorf("b does not say why: %s", why)
	}
	b.must(b.Heal(t.Context()))
	back := time.Now()
	b.must(b.A.PowerOn(t.Context()))
	stint, err := b.recorder.WaitOn(t.Context(), b.A.Name, back, time.Minute)
	b.must(err)
	if stint.Token == b.first.Token {
		t.Error("the guest cannot have kept its memory")
	}
	b.synced(b.A)
}

// staysStopped cuts the owner's power when its guest is stopped: the peer does not
// revive what its user switched off.
func (b *bench) staysStopped() {
	b.t.Helper()
	b.powerCut(b.A)
	b.notTaken()
}

// TestPausedStaysPaused takes over a guest that its user had paused. His last word
// holds, also when the last checkpoint is older than that.
func TestPausedStaysPaused(t *testing.T) {
	b := sharedBench(t, resumed)
	pause := func(on *lab.Host, verb string) time.Time {
		_, err := on.CLI(t.Context(), "vm", verb, lab.GuestName)
		b.must(err)
		return time.Now()
	}
	b.pausedSince(b.A, pause(b.A, "pause"))
	b.killAgent(b.A) // whose guard does not let it go on either
	b.must(b.A.StartAgent(t.Context()))
	b.pausedSince(b.A, time.Now())
	b.heardOut(b.A)
	pause(b.A, "unpause") // the last checkpoint is of a guest that is paused
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)

	b.atRest(b.A)
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	b.heardOut(b.B)
	pause(b.B, "pause") // the last checkpoint is of one that runs
	b.must(b.B.PowerCut(t.Context()))
	_, err := b.A.WaitState(t.Context(), 30*time.Second, func(v api.VM) error {
		if v.Owner != b.A.Name || v.State != "paused" {
			return fmt.Errorf("on %s it is %s", v.Owner, v.State)
		}
		return nil
	})
	b.must(err)
	b.resumed(b.A, pause(b.A, "unpause"))
}

// TestRestartLevel protects the disks only, two of them, one qcow2: after the
// power cut the guest boots on the peer and finds every record that it wrote.
func TestRestartLevel(t *testing.T) {
	b := newBench(t, "--protection", "restart", "--disk", "size=16M,format=qcow2")
	time.Sleep(2 * time.Second)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	_, err := b.recorder.WaitOn(t.Context(), b.B.Name, cut, time.Minute)
	b.must(err)
	proof, err := b.WaitAnswer(t.Context(), 10*time.Second)
	b.must(err)
	if proof.Token == b.first.Token || proof.Boots != b.first.Boots+1 || proof.Broken {
		t.Errorf("first %+v, on b %+v", b.first, proof)
	}
	found, err := b.B.VerifyRunning(t.Context(), b.vm.UUID)
	b.must(err)
	t.Log("the guest's disks on b:", found)
	b.atRest(b.A)
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
}

// TestPromoteByHand has no witness: nothing is promoted by itself, and by hand
// only with the operator's word that the peer is off.
func TestPromoteByHand(t *testing.T) {
	b := sharedBench(t, resumed)
	_, err := b.A.CLI(t.Context(), "witness", "remove")
	b.must(err)
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		status, err := b.A.API().HA(t.Context())
		if err == nil && status.Guests[0].Lease != nil && status.Guests[0].Lease.Required {
			err = errors.New("the guest still needs a lease")
		}
		return err
	}))
	b.synced(b.A)
	cut := b.powerCut(b.A)
	b.notTaken()
	_, err = b.B.CLI(t.Context(), "ha", "promote", lab.GuestName)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 6 {
		t.Errorf("without the operator's word: %v", err)
	}
	_, err = b.B.CLI(t.Context(), "ha", "promote", lab.GuestName, "--confirm-peer-off")
	b.must(err)
	b.resumed(b.B, cut)
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	b.witnessed()
}

// TestMaintenance gives the guest away and back: its memory comes along, and
// nobody mistakes it for a failure.
func TestMaintenance(t *testing.T) {
	b := sharedBench(t, resumed)
	for round, pair := range [][2]*lab.Host{{b.A, b.B}, {b.B, b.A}} {
		from, to := pair[0], pair[1]
		v := b.synced(from)
		began := time.Now()
		out, err := from.CLI(t.Context(), "node", "maintenance", "on")
		b.must(err)
		if !strings.Contains(out, "goes on on the peer") {
			t.Errorf("round %d: %s", round, out)
		}
		stint := b.resumed(to, began)
		stints := b.recorder.Stints()
		if before := stints[len(stints)-2]; stint.From <= before.To {
			t.Errorf("round %d: work was lost or done twice: counter %d here, %d there", round, before.To, stint.From)
		} else {
			t.Logf("round %d: the guest's gap was %v, its counter went from %d to %d", round, stint.First.Sub(before.Last).Round(time.Millisecond), before.To, stint.From)
		}
		if now := b.synced(to); now.Epoch != v.Epoch+1 {
			t.Errorf("round %d: epoch %d after %d", round, now.Epoch, v.Epoch)
		}
		b.wentOn(from, to, began)
		if _, err := from.CLI(t.Context(), "vm", "create", "other"); err == nil {
			t.Error("a guest was made on a node in maintenance")
		}
		_, err = from.CLI(t.Context(), "node", "maintenance", "off")
		b.must(err)
	}
}

// TestHandedToAStoppedGuard stops the guard while the guest is to be handed over: it
// stays, and is protected as before when the guard goes on, which then begins the
// pause that nobody waits for any more.
func TestHandedToAStoppedGuard(t *testing.T) {
	b := sharedBench(t, resumed)
	v := b.synced(b.A)
	guard, err := lab.Parent(v.PID)
	b.must(err)
	b.must(syscall.Kill(guard, syscall.SIGSTOP))
	out, err := b.A.CLI(t.Context(), "node", "maintenance", "on")
	b.must(syscall.Kill(guard, syscall.SIGCONT))
	if err == nil || !strings.Contains(out, "STAYS") || !strings.Contains(out, "pause-begin") {
		t.Errorf("%s, %v", out, err)
	}
	_, err = b.A.CLI(t.Context(), "node", "maintenance", "off")
	b.must(err)
	if now := b.synced(b.A); now.PID != v.PID || now.Epoch != v.Epoch {
		t.Errorf("process %d, epoch %d; before %d, %d", now.PID, now.Epoch, v.PID, v.Epoch)
	}
}

// wentOn checks that the disks which a handover has left behind became the replica
// as they were: nothing of them is kept a second time, and little is sent.
func (b *bench) wentOn(from, to *lab.Host, since time.Time) {
	b.t.Helper()
	events := func(h *lab.Host, kind string) (said string) {
		b.must(h.API().Events(b.t.Context(), api.EventFilter{Since: since}, func(e api.Event) error {
			if e.Kind == kind {
				said = e.Message
			}
			return nil
		}))
		return said
	}
	if said := events(from, "disks-kept"); said != "" {
		b.t.Error(said)
	}
	said := events(to, "replica-synced")
	var all, sent int64
	if i := strings.Index(said, "all "); i < 0 {
		b.t.Errorf("nothing was compared: %q", said)
	} else if _, err := fmt.Sscanf(said[i:], "all %d bytes of its disks were compared, %d sent", &all, &sent); err != nil {
		b.t.Errorf("%q: %v", said, err)
	}
	b.t.Logf("the resync after the handover: %s", said)
	if sent > all/16 { // the records of some seconds, not the file system
		b.t.Errorf("%d of %d bytes were sent", sent, all)
	}
}

// TestReplicaOutlivesQEMU: a guest that shuts down leaves its replica as it is,
// even when the guard is late to say that QEMU has ended: without this, a guest
// that is handed over by a shutdown stays where it is.
func TestReplicaOutlivesQEMU(t *testing.T) {
	b := lastBench(t, restarted)
	guard, err := lab.Parent(b.A.QEMU(t.Context(), b.vm.UUID))
	b.must(err)
	b.must(syscall.Kill(guard, syscall.SIGSTOP))
	_, err = b.A.CLI(t.Context(), "vm", "stop", lab.GuestName, "--timeout", "20s")
	b.must(err)
	b.must(syscall.Kill(guard, syscall.SIGCONT))
	b.must(b.A.API().Events(t.Context(), api.EventFilter{VM: lab.GuestName, Since: b.began}, func(e api.Event) error {
		if e.Kind == "replication-lost" {
			t.Error(e.Message)
		}
		return nil
	}))
}

// TestMaintenanceOfRestart moves a guest whose disks only are protected: it is
// shut down and boots on the peer, with every record it wrote.
func TestMaintenanceOfRestart(t *testing.T) {
	b := sharedBench(t, restarted)
	b.synced(b.A)
	began := time.Now()
	_, err := b.A.CLI(t.Context(), "node", "maintenance", "on")
	b.must(err)
	stint, err := b.recorder.WaitOn(t.Context(), b.B.Name, began, time.Minute)
	b.must(err)
	proof, err := b.WaitAnswer(t.Context(), 10*time.Second)
	b.must(err)
	if stint.Token == b.first.Token || proof.Boots != b.first.Boots+1 || proof.Broken {
		t.Errorf("first %+v, on b %+v", b.first, proof)
	}
	b.synced(b.B)
	b.wentOn(b.A, b.B, began)
	_, err = b.A.CLI(t.Context(), "node", "maintenance", "off")
	b.must(err)
}
