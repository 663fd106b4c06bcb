package e2e

import (
	"bytes"
	"errors"
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

// still waits until the screen shows the kernel's words, and nothing moves on it.
func (b *bench) still(on *lab.Host) lab.Screen {
	b.t.Helper()
	var last lab.Screen
	b.must(lab.Eventually(b.t.Context(), time.Minute, func() error {
		before := b.screen(on)
		time.Sleep(time.Second) // the guest is real
		if last = b.screen(on); !bytes.Equal(before.Pixels, last.Pixels) || last.Colours() < 2 {
			return errors.New("the screen is empty or moves")
		}
		return nil
	}))
	return last
}

// sameScreen compares the screen, drawn anew for this viewer, with an earlier one.
func (b *bench) sameScreen(on *lab.Host, before lab.Screen) {
	b.t.Helper()
	now := b.screen(on)
	if now.Width != before.Width || now.Height != before.Height || !bytes.Equal(now.Pixels, before.Pixels) {
		b.t.Errorf("on %s the screen of %dx%d with %d colours is not that of %dx%d with %d colours", on.Name,
			now.Width, now.Height, now.Colours(), before.Width, before.Height, before.Colours())
	}
	b.t.Logf("the screen on %s: %dx%d, %d colours", on.Name, now.Width, now.Height, now.Colours())
}

// said checks how a host says that it resumed the guest.
func (b *bench) said(on *lab.Host, words string) {
	b.t.Helper()
	if said := b.message(on, "guest-resumed"); !strings.Contains(said, words) {
		b.t.Errorf("%s says: %s", on.Name, said)
	}
}

// TestScreenSurvives takes a guest with a screen over three times, which shows the
// same pixels every time: in its standby; paused, in a QEMU started for it; and
// from the checkpoint before the last.
func TestScreenSurvives(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--display", "vnc",
		"--append", lab.KernelLine()+" console=tty0 console=ttyS0 loglevel=7 vt.global_cursor_default=0")
	before := b.still(b.A)
	b.standby(b.A, b.B)
	_, err := b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
	b.said(b.B, "by its standby")
	b.sameScreen(b.B, before)

	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	_, err = b.B.CLI(t.Context(), "vm", "set", lab.GuestName, "--standby=false")
	b.must(err)
	_, err = b.B.CLI(t.Context(), "vm", "pause", lab.GuestName)
	b.must(err)
	b.pausedSince(b.B, time.Now())
	b.must(b.B.PowerCut(t.Context()))
	_, err = b.A.WaitState(t.Context(), 30*time.Second, func(v api.VM) error {
		if v.Owner != "a" || v.State != "paused" {
			return fmt.Errorf("on %s it is %s", v.Owner, v.State)
		}
		return nil
	})
	b.must(err)
	b.said(b.A, "started for it")
	b.sameScreen(b.A, before)
	going := time.Now()
	_, err = b.A.CLI(t.Context(), "vm", "unpause", lab.GuestName)
	b.must(err)
	b.resumed(b.A, going)

	b.must(b.B.PowerOn(t.Context()))
	_, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now().Add(2*time.Second)))
	b.must(err)
	cut = time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.must(b.B.KillAgent())
	_, err = b.B.SpoilCheckpoint(b.vm.UUID)
	b.must(err)
	b.must(b.B.StartAgent(t.Context()))
	b.resumed(b.B, cut)
	b.said(b.B, "the one before the last")
	b.sameScreen(b.B, before)
}

// TestHardwareGrows gives a protected guest more memory and a screen while it is
// off: its replica, which is open on the peer all the time, takes them.
func TestHardwareGrows(t *testing.T) {
	b := newBench(t, "--protection", "resume")
	stopped := time.Now()
	for _, line := range [][]string{{"stop", "--timeout", "20s"}, {"set", "--memory", "160M", "--display", "vnc"}, {"start"}} {
		_, err := b.A.CLI(t.Context(), append([]string{"vm", line[0], lab.GuestName}, line[1:]...)...)
		b.must(err)
	}
	_, err := b.recorder.WaitOn(t.Context(), "a", stopped.Add(time.Second), time.Minute)
	b.must(err)
	b.first, err = b.WaitAnswer(t.Context(), 10*time.Second)
	b.must(err)
	b.saved, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
}

// pausedSince waits for a checkpoint of the paused guest.
func (b *bench) pausedSince(on *lab.Host, since time.Time) {
	b.t.Helper()
	_, err := on.WaitState(b.t.Context(), 20*time.Second, func(v api.VM) error {
		if v.State != "paused" || v.Checkpoint == nil || !v.Checkpoint.Time.After(since) {
			return fmt.Errorf("it is %s, checkpoint %+v", v.State, v.Checkpoint)
		}
		return nil
	})
	b.must(err)
}
