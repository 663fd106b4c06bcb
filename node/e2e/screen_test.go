package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// screen is what the guest's screen shows on a host, to a VNC viewer.
func (b *bench) screen(on *lab.Host) lab.Screen {
	b.t.Helper()
	v, err := on.Show(b.t.Context())
	b.must(err)
	s, err := lab.LookAt(b.t.Context(), v.VNCSocket)
	b.must(err)
	return s
}

// pauseOn pauses the guest and waits until its last two checkpoints are of that; the
// screen shows the kernel's words.
func (b *bench) pauseOn(on *lab.Host) lab.Screen {
	b.t.Helper()
	_, err := on.CLI(b.t.Context(), "vm", "pause", lab.GuestName)
	b.must(err)
	b.pausedSince(on, time.Now().Add(2*time.Second))
	s := b.screen(on)
	if s.Colours() < 2 {
		b.t.Error("the screen is empty")
	}
	return s
}

// wakeOn checks that the guest is paused on a host, how it got there, and that its
// screen, drawn anew for this viewer, is the earlier one; then it goes on.
func (b *bench) wakeOn(on *lab.Host, how string, before lab.Screen) {
	b.t.Helper()
	_, err := on.WaitState(b.t.Context(), 30*time.Second, func(v api.VM) error {
		if v.Owner != on.Name || v.State != "paused" {
			return fmt.Errorf("on %s it is %s", v.Owner, v.State)
		}
		return nil
	})
	b.must(err)
	if said := b.message(on, "guest-resumed"); !strings.Contains(said, how) {
		b.t.Errorf("%s says: %s", on.Name, said)
	}
	b.sameScreen(on, before)
	going := time.Now()
	_, err = on.CLI(b.t.Context(), "vm", "unpause", lab.GuestName)
	b.must(err)
	b.resumed(on, going)
}

// sameScreen compares the screen, drawn anew for this viewer, with an earlier one.
func (b *bench) sameScreen(on *lab.Host, before lab.Screen) {
	b.t.Helper()
	now := b.screen(on)
	if now.Width != before.Width || now.Height != before.Height {
		b.t.Fatalf("on %s the screen is %dx%d, it was %dx%d", on.Name, now.Width, now.Height, before.Width, before.Height)
	}
	// A VGA's cursor blinks by the clock of who draws it: one character may differ.
	cells := map[[2]int]int{}
	for at := 0; at < len(now.Pixels); at += 4 {
		if !bytes.Equal(now.Pixels[at:at+4], before.Pixels[at:at+4]) {
			pixel := at / 4
			cells[[2]int{pixel % now.Width / 9, pixel / now.Width / 16}]++
		}
	}
	if len(cells) > 1 {
		b.t.Errorf("on %s the screen is another one in %d characters", on.Name, len(cells))
	}
	b.t.Logf("the screen on %s: %dx%d, %d colours, the cursor's pixels that differ: %v", on.Name, now.Width, now.Height, now.Colours(), cells)
}

// TestScreenSurvives gives a protected guest more memory and a screen while it is
// off: its replica, which is open on the peer all the time, takes them. Then it is
// taken over three times, paused, so that nothing moves on its screen: in its standby;
// in a QEMU started for it; and from the checkpoint before the last.
func TestScreenSurvives(t *testing.T) {
	b := lastBench(t, resumed)
	b.hardwareGrows()
	b.standby(b.A, b.B)
	before := b.pauseOn(b.A)
	b.must(b.A.PowerCut(t.Context()))
	b.wakeOn(b.B, "by its standby", before)

	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	_, err := b.B.CLI(t.Context(), "vm", "set", lab.GuestName, "--standby=false")
	b.must(err)
	before = b.pauseOn(b.B)
	b.must(b.B.PowerCut(t.Context()))
	b.wakeOn(b.A, "started for it", before)

	b.must(b.B.PowerOn(t.Context()))
	b.synced(b.A)
	before = b.pauseOn(b.A)
	b.must(b.A.PowerCut(t.Context()))
	b.must(b.B.KillAgent())
	_, err = b.B.SpoilCheckpoint(b.vm.UUID)
	b.must(err)
	b.must(b.B.StartAgent(t.Context()))
	b.wakeOn(b.B, "the one before the last", before)
}

// hardwareGrows starts the guest anew with more memory and a screen.
func (b *bench) hardwareGrows() {
	b.t.Helper()
	ctx := b.t.Context()
	stopped := time.Now()
	line := lab.KernelLine() + " console=tty0 console=ttyS0 loglevel=7 vt.global_cursor_default=0"
	for _, words := range [][]string{{"stop", "--timeout", "20s"}, {"set", "--memory", "160M", "--display", "vnc", "--append", line}, {"start"}} {
		_, err := b.A.CLI(ctx, append([]string{"vm", words[0], lab.GuestName}, words[1:]...)...)
		b.must(err)
	}
	_, err := b.recorder.WaitOn(ctx, b.A.Name, stopped.Add(time.Second), time.Minute)
	b.must(err)
	b.first, err = b.WaitAnswer(ctx, 10*time.Second)
	b.must(err)
	b.saved, err = b.A.WaitState(ctx, time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
}

// pausedSince waits for a checkpoint of the paused guest, in a replica that counts.
func (b *bench) pausedSince(on *lab.Host, since time.Time) {
	b.t.Helper()
	_, err := on.WaitState(b.t.Context(), 20*time.Second, func(v api.VM) error {
		if v.State != "paused" || v.Replica == nil || v.Replica.State != "synced" || v.Checkpoint == nil || !v.Checkpoint.Time.After(since) {
			return fmt.Errorf("it is %s, replica %+v, checkpoint %+v", v.State, v.Replica, v.Checkpoint)
		}
		return nil
	})
	b.must(err)
}
