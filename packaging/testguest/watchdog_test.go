package testguest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWatchdog runs the product's guard and the keeper of the watchdog on Debian's
// kernel with its softdog. A host that is cut off lives; one whose guard is stopped
// is reset within what a takeover allows.
//
// The machine's time is its instructions, not the host's clock: milliseconds are
// judged, and on a busy host an emulated processor stands still for longer than they
// leave. Where it would only wait, its time leaps.
func TestWatchdog(t *testing.T) {
	image, err := Build(t.Context(), cache(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initrd, console := filepath.Join(dir, "initrd"), filepath.Join(dir, "console")
	if err := withTrial(t, image.Initrd, initrd, dir); err != nil {
		t.Fatal(err)
	}
	qemu := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off", "-cpu", "max", "-machine", "q35", "-m", "256M", "-action", "reboot=shutdown",
		"-kernel", image.Kernel, "-initrd", initrd, "-append", KernelWords+" guest.watchdog=1", "-serial", "file:"+console)
	ended := make(chan error, 1)
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- qemu.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(2 * patience):
		err = errors.Join(errors.New("it is not reset"), qemu.Process.Kill(), <-ended)
	}
	said, _ := os.ReadFile(console)
	if err != nil {
		t.Errorf("the guest: %v", err)
	}
	lines, last := trialLines(said)
	for _, want := range []string{"armed", "fed for 4s", "frozen for 4s", "disarmed for 4s, active: false", "guard stopped"} {
		if !strings.Contains(lines, "trial: "+want+"\n") {
			t.Errorf("it did not say %q", want)
		}
	}
	t.Logf("the guest was last alive %d ms after the deadline", last)
	if last < -500 || last > 300 {
		t.Error("it was not reset when it had to be")
	}
	if t.Failed() {
		t.Logf("console:\n%s", said)
	}
}

// trialLines are what the trial said, and when it was last alive, in ms after the
// deadline.
func trialLines(said []byte) (lines string, last int) {
	last = 1 << 20
	for line := range strings.Lines(strings.ReplaceAll(string(said), "\r", "")) {
		if strings.HasPrefix(line, "trial: ") {
			lines += line
			_, _ = fmt.Sscanf(line, "trial: alive %d ms", &last)
		}
	}
	return lines, last
}

// withTrial is the test guest with another workload: the kernel unpacks one archive
// after the other, and the later file wins.
func withTrial(t *testing.T, base, initrd, dir string) error {
	program := filepath.Join(dir, "trial")
	err := run(t.Context(), "", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "vmctl/packaging/testguest/watchdogtrial")
	if err != nil {
		return err
	}
	first, err := os.ReadFile(base)
	if err != nil {
		return err
	}
	out := bytes.NewBuffer(first)
	packed := gzip.NewWriter(out)
	archive := &cpio{out: packed}
	archive.addFile("bin/workload", program)
	archive.add("TRAILER!!!", 0, nil)
	if err := errors.Join(archive.err, packed.Close()); err != nil {
		return err
	}
	return os.WriteFile(initrd, out.Bytes(), 0o600)
}
