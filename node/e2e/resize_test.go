package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// TestDisksGrow makes the disks of a protected guest larger while it runs, a raw
// and a qcow2 one. It sees them, goes on writing, and has its file system take the new
// room. Its replica does not count until it is as large and everything was compared;
// then the guest goes on on the peer, with the larger disks.
func TestDisksGrow(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--disk", "32M,format=qcow2")
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	before, _, _ := b.recorder.Last()
	rate := func(bytes string) {
		_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--resync-rate", bytes)
		b.must(err)
	}
	rate("4M") // half a minute, which the test may take to look
	began := time.Now()
	_, err := b.A.CLI(t.Context(), "vm", "disk", "resize", lab.GuestName, "disk0", "96M")
	b.must(err)
	t.Logf("resized within %v", time.Since(began).Round(time.Millisecond))
	v, err := b.A.Show(t.Context())
	b.must(err)
	if v.Replica == nil || v.Replica.State == "synced" || !strings.Contains(v.Replica.Reason, "disk0 is made larger") {
		t.Errorf("right after it: %+v", v.Replica)
	}
	// The standby passes the request on, also in the middle of the resync.
	_, err = b.B.CLI(t.Context(), "vm", "disk", "resize", lab.GuestName, "disk1", "+16M")
	b.must(err)
	rate("1G")
	b.sees(96<<20, 48<<20)
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() error {
		if now, _, _ := b.recorder.Last(); now.Counter < before.Counter+2*lab.Rate {
			return fmt.Errorf("the guest stands still: counter %d, then %d", before.Counter, now.Counter)
		}
		return nil
	}))
	var data int64
	b.must(lab.Eventually(t.Context(), 20*time.Second, func() (err error) {
		data, err = b.GrowData(t.Context())
		return err
	}))
	if data < 80<<20 {
		t.Errorf("the guest's file system has %d bytes", data)
	}
	b.refused("a smaller disk", "a disk only grows", "disk0", "64M")
	b.refused("no such disk", "has no disk", "disk7", "1G")
	b.refused("no room", "free", "disk0", "900T")
	b.saved, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	out, err := b.A.CLI(t.Context(), "vm", "verify", lab.GuestName)
	b.must(err)
	if !strings.Contains(out, "equal") || b.A.QEMU(t.Context(), b.vm.UUID) != pid {
		t.Errorf("verified: %s; QEMU is %d, it was %d", out, b.A.QEMU(t.Context(), b.vm.UUID), pid)
	}
	b.saved, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
	b.sees(96<<20, 48<<20)
}

// TestOwnerDiesWhileDisksGrow cuts the owner's power right after a disk has grown:
// the peer's copy does not count, so nobody takes the guest over. With the power it
// comes back on its owner, with the larger disk, and is protected again.
func TestOwnerDiesWhileDisksGrow(t *testing.T) {
	b := sharedBench(t, restarted)
	_, err := b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--resync-rate", "1M") // a minute and a half
	b.must(err)
	_, err = b.A.CLI(t.Context(), "vm", "disk", "resize", lab.GuestName, "disk0", "+32M")
	b.must(err)
	b.must(b.A.PowerCut(t.Context()))
	b.notTaken()
	b.must(b.A.PowerOn(t.Context()))
	_, err = b.A.CLI(t.Context(), "vm", "set", lab.GuestName, "--resync-rate", "1G")
	b.must(err)
	_, err = b.WaitAnswer(t.Context(), time.Minute)
	b.must(err)
	b.sees(96 << 20)
	b.synced(b.A)
	found, err := b.A.VerifyRunning(t.Context(), b.vm.UUID)
	b.must(err)
	t.Logf("the guest's disks on a: %s", found)
}

// sees waits until the guest's kernel sees disks of these sizes.
func (b *bench) sees(sizes ...int64) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), 20*time.Second, func() error {
		seen, err := b.AskSizes(b.t.Context())
		if err != nil {
			return err
		}
		for i, size := range sizes {
			if name := fmt.Sprintf("vd%c", 'a'+i); seen[name] != size {
				return fmt.Errorf("the guest sees %v, %s is to have %d bytes", seen, name, size)
			}
		}
		return nil
	}))
}

// refused asks for what must not be done.
func (b *bench) refused(what, say, disk, size string) {
	b.t.Helper()
	_, err := b.A.CLI(b.t.Context(), "vm", "disk", "resize", lab.GuestName, disk, size)
	if err == nil || !strings.Contains(err.Error(), say) {
		b.t.Errorf("%s: %v", what, err)
	}
}

// TestDisksGrowInBadTimes makes a disk larger while the way to the peer is cut, and
// has the agent killed in the middle of it: each time the guest runs on, and in the
// end guest, spec and replica have disks of one size, and are equal.
func TestDisksGrowInBadTimes(t *testing.T) {
	b := sharedBench(t, resumed)
	pid := b.A.QEMU(t.Context(), b.vm.UUID)
	b.must(b.Cut(t.Context(), b.A, b.B))
	b.writesAlone(0)
	_, err := b.A.CLI(t.Context(), "vm", "disk", "resize", lab.GuestName, "disk0", "+16M")
	b.must(err)
	b.sees(80 << 20)
	b.must(b.Heal(t.Context()))
	b.oneSize("without the peer", 80<<20)
	image := filepath.Join(b.A.StateDir(), "guests", b.vm.UUID, "disks", "disk0.raw")
	size := int64(80 << 20)
	for what, killed := range map[string]func() bool{
		"at once": func() bool { return true },
		// Before the spec says so, and before the guest is protected again.
		"when it has grown": func() bool {
			info, err := os.Stat(image)
			return err == nil && info.Size() > size
		},
	} {
		b.heardOut(b.A)
		asked := make(chan error, 1)
		go func() {
			_, err := b.A.CLI(t.Context(), "vm", "disk", "resize", lab.GuestName, "disk0", "+4M")
			asked <- err
		}()
		for deadline := time.Now().Add(20 * time.Second); !killed() && time.Now().Before(deadline); {
			time.Sleep(100 * time.Microsecond)
		}
		b.must(b.A.KillAgent())
		err := <-asked
		b.must(b.A.StartAgent(t.Context()))
		grown := b.oneSize("killed "+what, 0)
		t.Logf("killed %s: %d MiB, the command said %v", what, grown>>20, err)
		if what != "at once" && grown != size+4<<20 {
			t.Errorf("killed %s: it has %d bytes", what, grown)
		}
		size = grown
	}
	if now := b.A.QEMU(t.Context(), b.vm.UUID); now != pid {
		t.Errorf("QEMU is process %d, it was %d", now, pid)
	}
}

// oneSize waits for a replica that counts, and looks whether all say the same of the
// disk's size; 0: whatever that is.
func (b *bench) oneSize(what string, size int64) int64 {
	b.t.Helper()
	v := b.synced(b.A)
	if size == 0 {
		seen, err := b.AskSizes(b.t.Context())
		b.must(err)
		size = seen["vda"]
	}
	b.sees(size)
	for _, h := range []*lab.Host{b.A, b.B} {
		info, err := os.Stat(filepath.Join(h.StateDir(), "guests", b.vm.UUID, "disks", "disk0.raw"))
		b.must(err)
		if info.Size() != size {
			b.t.Errorf("%s: on %s the disk has %d bytes, not %d", what, h.Name, info.Size(), size)
		}
	}
	// The first size of all is the image's, which the spec leaves out.
	if said := fmt.Sprintf("%dMiB", size>>20); size != 64<<20 && !strings.Contains(fmt.Sprint(v.Spec), said) {
		b.t.Errorf("%s: the guest sees %d bytes, the spec is %v", what, size, v.Spec)
	}
	out, err := b.A.CLI(b.t.Context(), "vm", "verify", lab.GuestName)
	b.must(err)
	if !strings.Contains(out, "equal") {
		b.t.Errorf("%s: %s", what, out)
	}
	return size
}
