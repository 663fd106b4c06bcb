package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestVerify changes a byte of the replica behind everybody's back: vm verify
// finds, outdates and repairs it while the guest runs, and the guest resumes
// from it.
func TestVerify(t *testing.T) {
	b := sharedBench(t, resumed)
	out, err := b.A.CLI(t.Context(), "vm", "verify", lab.GuestName)
	b.must(err)
	if !strings.Contains(out, "equal") {
		t.Errorf("an equal replica: %s", out)
	}
	disks, err := filepath.Glob(filepath.Join(b.B.StateDir(), "guests", b.vm.UUID, "disks", "*.raw"))
	b.must(err)
	if len(disks) == 0 {
		t.Fatal("the replica has no disks")
	}
	spoilt, at := spoil(t, disks[0])
	began := time.Now()
	// Asked on the standby: it is the owner's business.
	out, err = b.B.CLI(t.Context(), "--output", "json", "vm", "verify", lab.GuestName)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("a replica that differs: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var v api.Verification
	b.must(json.Unmarshal([]byte(lines[len(lines)-1]), &v))
	if v.State != api.VerifyRepaired || v.DifferedBytes == 0 || v.RepairedBytes == 0 {
		t.Errorf("the outcome: %+v", v)
	}
	t.Logf("repaired %v after it was asked: %s", time.Since(began).Round(time.Millisecond), lines[len(lines)-1])
	if now := readByte(t, disks[0], at); now == spoilt {
		t.Error("the byte is as it was spoilt")
	}
	events, err := b.A.CLI(t.Context(), "events", "--since", time.Since(b.began).String())
	b.must(err)
	for _, kind := range []string{"replica-differed ", "replica-repaired", "replica-differed-over"} {
		if !strings.Contains(events, kind) {
			t.Errorf("no event %s in\n%s", kind, events)
		}
	}
	shown := b.synced(b.A)
	if shown.Verified == nil || shown.Verified.State != api.VerifyRepaired {
		t.Errorf("vm show has %+v", shown.Verified)
	}
	_, err = b.A.CLI(t.Context(), "vm", "verify", lab.GuestName)
	b.must(err)
	b.saved, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
}

// spoil changes a byte near the end of a disk, where the guest leaves it alone.
func spoil(t *testing.T, path string) (spoilt byte, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	at = info.Size() - 5000
	spoilt = readByte(t, path, at) ^ 0x55
	if _, err := file.WriteAt([]byte{spoilt}, at); err != nil {
		t.Fatal(err)
	}
	return spoilt, at
}

func readByte(t *testing.T, path string, at int64) byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var p [1]byte
	if _, err := file.ReadAt(p[:], at); err != nil {
		t.Fatal(err)
	}
	return p[0]
}
