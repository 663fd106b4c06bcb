package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
	"vmctl/packaging/testguest"
)

// told waits until the webhook has heard one end of an alarm of a host.
func (b *bench) told(h *lab.Host, kind, state string) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 15*time.Second, func() error {
		if b.ear.Heard(h, kind, state) == 0 {
			return fmt.Errorf("the webhook did not hear that %s of %s is %s", kind, h.Name, state)
		}
		return nil
	}))
}

// recorded waits for an event of a host since the test began. Who hears of events does
// not hear of the same plain one twice within half a minute, and the test before may
// have caused it.
func (b *bench) recorded(h *lab.Host, kind string) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		missing := errors.New(h.Name + " has no event " + kind)
		err := h.API().Events(b.t.Context(), api.EventFilter{Since: b.began}, func(e api.Event) error {
			if e.Kind == kind {
				missing = nil
			}
			return nil
		})
		return errors.Join(err, missing)
	}))
}

// heardOut waits until a host has told all that it has to tell: what its agent has not
// told dies with it. The end of an alarm is stored, but who heard of its beginning only
// would wait for the end, and the lab would not look mended. After a host was cut off
// its agent tries again only every few seconds.
func (b *bench) heardOut(h *lab.Host) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 30*time.Second, func() error {
		status, err := h.API().Status(b.t.Context())
		if err != nil {
			return err
		}
		for _, target := range status.Node.Notify {
			if target.Waiting > 0 {
				return fmt.Errorf("%s has not told %s of %d events: %s", h.Name, target.Target, target.Waiting, target.Error)
			}
		}
		return nil
	}))
}

// powerCut hears a host out and cuts its power, and says when.
func (b *bench) powerCut(h *lab.Host) time.Time {
	b.t.Helper()
	b.heardOut(h)
	cut := time.Now()
	b.must(h.PowerCut(b.t.Context()))
	return cut
}

// killAgent hears a host out and kills its agent, and says when.
func (b *bench) killAgent(h *lab.Host) time.Time {
	b.t.Helper()
	b.heardOut(h)
	killed := time.Now()
	b.must(h.KillAgent())
	return killed
}

// raised are the kinds of alarms that a host shows.
func (b *bench) raised(h *lab.Host) (kinds []string) {
	b.t.Helper()
	status, err := h.API().Status(b.t.Context())
	b.must(err)
	for _, a := range status.Node.Alarms {
		kinds = append(kinds, a.Kind)
	}
	return kinds
}

// ended waits until a host's agent has ended by itself.
func (b *bench) ended(h *lab.Host) {
	b.t.Helper()
	select {
	case <-h.Gone():
	case <-time.After(20 * time.Second):
		b.t.Fatalf("the agent of %s does not end", h.Name)
	}
}

// TestAgentTerminated stops the owner's agent as an upgrade does: the guest
// runs on where it is.
func TestAgentTerminated(t *testing.T) {
	b := sharedBench(t, resumed)
	before := b.synced(b.A)
	b.must(b.A.Signal(syscall.SIGTERM))
	b.ended(b.A)
	b.must(b.A.StartAgent(t.Context()))
	v := b.synced(b.A)
	if v.PID != before.PID || v.Epoch != before.Epoch || len(b.recorder.Stints()) != 1 {
		t.Errorf("the guest was not left alone: process %d, now %d, epoch %d, %+v", before.PID, v.PID, v.Epoch, b.recorder.Stints())
	}
}

// TestNodeShutdown switches a host off on purpose: the guest goes on on the
// peer before that, nothing is lost, and nobody takes it for a failure.
func TestNodeShutdown(t *testing.T) {
	b := sharedBench(t, resumed)
	v := b.synced(b.A)
	began := time.Now()
	out, err := b.A.CLI(t.Context(), "node", "shutdown")
	b.must(err)
	if !strings.Contains(out, "goes on on the peer") {
		t.Error(out)
	}
	b.ended(b.A)
	if pid := b.A.QEMU(t.Context(), b.vm.UUID); pid != 0 {
		t.Errorf("a still has a QEMU, process %d", pid)
	}
	stint := b.resumed(b.B, began)
	stints := b.recorder.Stints()
	if before := stints[len(stints)-2]; stint.From <= before.To {
		t.Errorf("work was lost or done twice: counter %d on a, %d on b", before.To, stint.From)
	}
	b.must(b.A.PowerCut(t.Context()))
	b.told(b.B, "peer-off", "on")
	b.recorded(b.B, "peer-away")
	b.must(b.A.PowerOn(t.Context()))
	if now := b.synced(b.B); now.Epoch != v.Epoch+1 {
		t.Errorf("epoch %d after %d", now.Epoch, v.Epoch)
	}
	b.told(b.B, "peer-off", "off")
	if n := b.ear.Heard(b.B, "resync-failing", "on"); n != 0 {
		t.Error("a peer that is away is no replica that fails")
	}
	if n := b.ear.Heard(b.B, "peer-lost", "on"); n != 0 {
		t.Errorf("a planned shutdown was told as a failure, %d times", n)
	}
}

// TestNodeShutdownUnprotected: what nobody can take over is shut down in order,
// and starts again with the node.
func TestNodeShutdownUnprotected(t *testing.T) {
	b := sharedBench(t, restarted)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--protection", "none")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--protection", "restart")
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		if v, err := b.A.Show(t.Context()); err != nil || v.Protection.Level != "none" || v.Replica != nil {
			return fmt.Errorf("it is still protected: %+v, replica %+v, %w", v.Protection, v.Replica, err)
		}
		return nil
	}))
	out, err := b.A.CLI(t.Context(), "node", "shutdown")
	b.must(err)
	if !strings.Contains(out, "was stopped: guest; it is not protected") {
		t.Error(out)
	}
	b.ended(b.A)
	report, err := b.A.VerifyDisks(t.Context(), b.vm.UUID)
	b.must(err)
	t.Log("disk:", report)
	began := time.Now()
	b.must(b.A.StartAgent(t.Context()))
	_, err = b.recorder.WaitOn(t.Context(), b.A.Name, began, time.Minute)
	b.must(err)
	proof, err := b.WaitAnswer(t.Context(), 10*time.Second)
	b.must(err)
	if proof.Boots != b.first.Boots+1 || proof.Broken {
		t.Errorf("first %+v, after the shutdown %+v", b.first, proof)
	}
}

// TestMaintenanceOutlastsTheHost: a host in maintenance goes away and comes back
// without an alarm, still in maintenance, and takes over all the same when its
// peer dies: nobody else could. That a peer is away is told once in a while only, so
// that b's agent must not have told it yet.
func TestMaintenanceOutlastsTheHost(t *testing.T) {
	b := sharedBench(t, resumed)
	b.killAgent(b.B)
	b.must(b.B.StartAgent(t.Context()))
	b.synced(b.A)
	began := time.Now()
	_, err := b.A.CLI(t.Context(), "node", "maintenance", "on")
	b.must(err)
	b.afterwards("node", "maintenance", "off") // it has the guest again then
	b.resumed(b.B, began)
	b.synced(b.B)
	b.powerCut(b.A)
	b.recorded(b.B, "peer-away")
	if kinds := strings.Join(b.raised(b.B), " "); !strings.Contains(kinds, "peer-maintenance") || strings.Contains(kinds, "peer-lost") {
		t.Errorf("b shows %s", kinds)
	}
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	if n := b.ear.Heard(b.B, "peer-lost", "on"); n != 0 {
		t.Errorf("maintenance was told as a failure, %d times", n)
	}
	_, err = b.B.CLI(t.Context(), "node", "maintenance", "on") // where to?
	if err == nil || !strings.Contains(err.Error(), "stay") {
		t.Errorf("handed over to a node in maintenance: %v", err)
	}
	_, err = b.B.CLI(t.Context(), "node", "maintenance", "off")
	b.must(err)
	why, err := b.A.CLI(t.Context(), "ha", "why", lab.GuestName)
	b.must(err)
	if !strings.Contains(why, "this node is in maintenance") || !strings.Contains(why, "would still take") {
		t.Errorf("a does not say what it would do: %s", why)
	}
	b.alarm(b.B, "rpo-exceeded", false) // or b's next agent would not know for half a minute
	b.synced(b.B)
	cut := b.powerCut(b.B)
	b.resumed(b.A, cut)
}

// aheadOfCheckpoint waits until the guest on a has written for about a second
// since its last checkpoint, and the next one is not near.
func (b *bench) aheadOfCheckpoint() {
	b.t.Helper()
	var sequence, then uint64
	b.must(lab.Eventually(b.t.Context(), time.Minute, func() error {
		v, err := b.A.Show(b.t.Context())
		if err != nil {
			return err
		}
		now, _, _ := b.recorder.Last()
		if v.Replica == nil || v.Replica.State != "synced" || v.Checkpoint == nil {
			return errors.New("not in sync")
		}
		if v.Checkpoint.Sequence != sequence {
			sequence, then = v.Checkpoint.Sequence, now.Counter
		}
		if now.Counter < then+10 {
			return fmt.Errorf("%d records since checkpoint %d", now.Counter-then, sequence)
		}
		b.saved = v
		return nil
	}))
}

// TestRejoin follows a node that was taken over, step by step: it finds its
// epoch refused, keeps what it wrote alone, and is the standby again.
func TestRejoin(t *testing.T) {
	b := sharedBench(t, resumed)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--interval", "5")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--interval", fmt.Sprint(b.vm.Protection.IntervalSeconds))
	b.heardOut(b.A)
	b.aheadOfCheckpoint()
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	before, _, _ := b.recorder.Last()
	stint := b.resumed(b.B, cut)
	if stint.From > before.Counter {
		t.Fatalf("nothing diverged: counter %d on a, from %d on b; the test shows nothing", before.Counter, stint.From)
	}
	b.must(b.A.PowerOn(t.Context()))
	v := b.synced(b.B)
	if v.Owner != b.B.Name || v.Epoch != b.vm.Epoch+1 {
		t.Errorf("owner %s, epoch %d", v.Owner, v.Epoch)
	}
	b.event(b.A, "disks-kept")
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() (err error) {
		if v, err = b.B.Show(t.Context()); err == nil && len(v.Kept) != 1 {
			err = errors.New("b does not show what a keeps")
		}
		return err
	}))
	kept := v.Kept[0]
	if kept.Node != b.A.Name || kept.Epoch != b.vm.Epoch || kept.Bytes == 0 {
		t.Errorf("kept: %+v", kept)
	}
	report, err := testguest.VerifyDisk(t.Context(), filepath.Join(kept.Path, "disk0.raw"))
	b.must(err)
	t.Logf("a wrote up to counter %d, b went on from %d; kept: %s", before.Counter, stint.From, report)
	var counter uint64
	if i := strings.Index(report, "(counter "); i < 0 {
		t.Error("no counter in the report")
	} else if _, err := fmt.Sscanf(report[i:], "(counter %d,", &counter); err != nil {
		t.Error(err)
	}
	if counter < stint.From {
		t.Errorf("kept are records up to counter %d only: what a wrote alone, from %d on, is lost", counter, stint.From)
	}
	out, err := b.B.CLI(t.Context(), "vm", "kept", lab.GuestName, "--rm", fmt.Sprint(kept.Epoch))
	b.must(err)
	if _, err := os.Stat(kept.Path); !os.IsNotExist(err) {
		t.Errorf("%s: %v", out, err)
	}
	b.event(b.A, "kept-removed")
	if v, err = b.B.Show(t.Context()); err != nil || len(v.Kept) != 0 {
		t.Errorf("%+v, %v", v.Kept, err)
	}
}
