package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/qmp"
	"vmctl/vm/qmp/qmptest"
)

// target is a monitor under the contract: the fake, or QEMU itself.
type target struct {
	path         string
	ram          string     // its RAM file; a fake has none
	files        func() int // open in QEMU
	freeze, thaw func()
	kill         func()
}

// starter starts a target; one given ram waits for the state that belongs to it.
type starter func(t *testing.T, ram ...string) target

// targets runs a test against both.
func targets(t *testing.T, test func(t *testing.T, start starter)) {
	for name, start := range map[string]starter{"fake": startFake, "qemu": startQEMU} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { noGoroutines(t) }) // after every other cleanup
			test(t, start)
		})
	}
}

func startFake(t *testing.T, ram ...string) target {
	state := qmp.StatePrelaunch
	if len(ram) > 0 {
		state = qmp.StateInMigrate
	}
	m := qmptest.StartMachine(t, state)
	return target{path: m.Path(), files: m.OpenFiles, freeze: m.Freeze, thaw: m.Thaw, kill: m.Kill}
}

func startQEMU(t *testing.T, ram ...string) target {
	t.Helper()
	if len(ram) > 0 {
		return runQEMU(t, ram[0], "-incoming", "defer")
	}
	return runQEMU(t, filepath.Join(t.TempDir(), "ram"))
}

// runQEMU starts a machine that is a whole PC without a guest: its firmware runs.
func runQEMU(t *testing.T, ram string, options ...string) target {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "q")
	cmd := exec.Command("qemu-system-x86_64", append([]string{
		"-accel", "tcg", "-M", "pc-q35-7.2,memory-backend=ram,suppress-vmdesc=on", "-m", "32M",
		"-object", "memory-backend-file,id=ram,share=on,size=32M,mem-path=" + ram,
		"-global", "migration.send-configuration=off",
		"-S", "-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-qmp", "unix:" + path + ",server=on,wait=off"}, options...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The death signal is tied to the thread that starts QEMU.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	kill := func() { _ = cmd.Process.Kill(); <-ended }
	t.Cleanup(func() {
		kill()
		_ = os.RemoveAll(dir)
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("QEMU said: %s", stderr.String())
		}
	})
	waitFor(t, "QEMU's monitor", func() bool { _, err := os.Stat(path); return err == nil })
	return target{
		path: path,
		ram:  ram,
		files: func() int {
			list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		},
		freeze: func() { _ = cmd.Process.Signal(syscall.SIGSTOP) },
		thaw:   func() { _ = cmd.Process.Signal(syscall.SIGCONT) },
		kill:   kill,
	}
}

// background is a context that ends before the test's own limit.
func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// dial connects, until the end of the test.
func dial(t *testing.T, path string) *qmp.Client {
	t.Helper()
	var c *qmp.Client
	waitFor(t, "connection", func() bool {
		var err error
		c, err = qmp.Dial(background(t), path, slog.New(slog.DiscardHandler))
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// noGoroutines fails if a goroutine of the package is left. One that has reported
// its end may need a moment to be gone.
func noGoroutines(t *testing.T) {
	t.Helper()
	var left string
	for range 200 {
		left = ""
		buf := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "created by vmctl/vm/qmp.") || strings.Contains(stack, "vmctl/vm/qmp.(*Client)") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("goroutines are left after Close:\n%s", left)
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ready(); {
		if time.Now().After(end) {
			t.Fatalf("no %s in 20 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("error is %v, want one that is %v", err, target)
		}
	}
}
