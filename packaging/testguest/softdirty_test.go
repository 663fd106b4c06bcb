package testguest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/softdirty.sh
var softDirtyInit []byte

// TestSoftDirty runs the tests of snapshot/memory under Debian's kernel, which
// has soft-dirty bits: the kernels of the machines that run these tests may
// have none, and skip them.
func TestSoftDirty(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	image, err := Build(t.Context(), cache(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "memory.test")
	if err := run(t.Context(), "", []string{"CGO_ENABLED=0"}, "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", binary, "vmctl/snapshot/memory"); err != nil {
		t.Fatal(err)
	}
	script, initrd := filepath.Join(dir, "init"), filepath.Join(dir, "initrd")
	err = os.WriteFile(script, softDirtyInit, 0o700)
	if err = errors.Join(err, image.Extend(initrd, map[string]string{"bin/memory.test": binary, "init": script})); err != nil {
		t.Fatal(err)
	}
	swap := filepath.Join(dir, "swap")
	if err := run(t.Context(), "", nil, "truncate", "-s", "64M", swap); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	console := &bytes.Buffer{}
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", "768M", "-smp", "2", "-no-reboot",
		"-kernel", image.Kernel, "-initrd", initrd, "-append", KernelWords+" panic=-1",
		"-drive", "if=virtio,format=raw,file="+swap, "-serial", "stdio")
	qemu.Stdout, qemu.Stderr = console, console
	if err := qemu.Run(); err != nil {
		t.Errorf("QEMU: %v", err)
	}
	out := strings.ReplaceAll(console.String(), "\r", "")
	t.Log(out)
	if !regexp.MustCompile(`(?m)^PASS$`).MatchString(out) || !strings.Contains(out, "result 0\n") {
		t.Error("the tests did not pass")
	}
	for _, test := range []string{"TestSelfTest", "TestSoftDirtyMissesNothing", "TestSoftDirtyAuditFindsAHole", "TestSoftDirtyRefuses/swap"} {
		if !strings.Contains(out, "--- PASS: "+test) {
			t.Errorf("%s did not run", test)
		}
	}
}
