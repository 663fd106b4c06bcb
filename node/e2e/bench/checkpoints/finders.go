package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vmctl/packaging/testguest"
)

// finders compares the two ways of finding written pages, in a guest with
// Debian's kernel: the kernel here may have no soft-dirty bits.
func (b *bench) finders(ctx context.Context) error {
	image, err := testguest.Build(ctx, filepath.Join(b.root, ".cache", "guest"))
	if err != nil {
		return err
	}
	program, script, initrd := b.path("finder.test"), b.path("init"), b.path("initrd")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", program, "vmctl/snapshot/memory")
	build.Dir, build.Stderr, build.Env = b.root, os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return err
	}
	if err := os.WriteFile(script, []byte(finderInit), 0o755); err != nil {
		return err
	}
	if err := image.Extend(initrd, map[string]string{"bin/memory.test": program, "init": script}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	console := &bytes.Buffer{}
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", "6G", "-smp", "2", "-no-reboot",
		"-kernel", image.Kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio")
	qemu.Stdout, qemu.Stderr = console, os.Stderr
	ran := qemu.Run()
	err = eachResult(strings.NewReader(console.String()), func(name string, values map[string]float64) error {
		var s Sample
		if _, err := fmt.Sscanf(name, "%dMiB/%dMBs", &s.Memory, &s.Rate); err != nil {
			return fmt.Errorf("benchmark %s: %w", name, err)
		}
		for _, of := range []string{ofCompare, ofSoftDirty} {
			s.Of, s.Pause = of, values["ms-"+of]
			if err := b.keep(s); err != nil {
				return err
			}
		}
		return nil
	})
	if !strings.Contains(console.String(), "result 0") {
		err = errors.Join(err, errors.New("the benchmark did not end well"))
	}
	if err = errors.Join(ran, err); err != nil { // what was measured until then is kept
		return fmt.Errorf("%w; the guest said: %s", err, console)
	}
	return nil
}

const finderInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp
mount -t tmpfs -o size=90% shm /dev/shm
uname -r
VMCTL_TEST_SOFT_DIRTY=must /bin/memory.test -test.run '^$' -test.bench '^BenchmarkFinder$' -test.benchtime 1x -test.timeout 30m
echo "result $?"
poweroff -f
`
