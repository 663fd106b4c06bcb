package accel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play QEMU: an environment variable says what it
// writes and how it ends.
func TestMain(m *testing.M) {
	if os.Getenv("ACCEL_TEST_QEMU") != "" {
		os.Exit(fakeQEMU())
	}
	os.Exit(m.Run())
}

func fakeQEMU() int {
	if pids := os.Getenv("ACCEL_TEST_PIDS"); pids != "" {
		f, err := os.OpenFile(pids, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return 99
		}
		fmt.Fprintln(f, os.Getpid())
		f.Close()
	}
	if image, err := os.ReadFile("/proc/self/fd/3"); err != nil || !slices.Equal(image, guestImage) {
		fmt.Fprintln(os.Stderr, "no guest to run:", err)
		return 98
	}
	fmt.Fprint(os.Stderr, os.Getenv("ACCEL_TEST_ERRORS"))
	fmt.Print(os.Getenv("ACCEL_TEST_OUTPUT"))
	switch end := os.Getenv("ACCEL_TEST_QEMU"); end {
	case "hang":
		time.Sleep(time.Hour)
	case "spin":
		for {
			_ = end
		}
	case "child": // which holds the pipes
		cmd := exec.Command("sleep", "3600")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if cmd.Start() != nil {
			return 97
		}
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		time.Sleep(time.Hour)
	default:
		code, _ := strconv.Atoi(end)
		return code
	}
	return 0
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	const all = "RLCX" + "................" + "PITUSOK\n"
	for _, test := range []struct {
		name, end, output, errors string
		accel                     string
		reason                    []string
		unsure                    bool
	}{
		{"to its end, then hangs", "hang", all, "", KVM, []string{"to its end"}, false},
		{"firmware noise before", "hang", "SeaBIOS (R)\r\n\n" + all, "", KVM, nil, false},
		{"to its end, then exits", "0", all, "", KVM, nil, false},
		{"silent, idle", "hang", "", "", TCG, []string{"did not end", "firmware"}, true},
		{"silent, busy", "spin", "", "", TCG, []string{"did not end", "firmware"}, false},
		{"stuck", "hang", "RLCX", "", TCG, []string{"did not end", "exceptions"}, true},
		{"too slow", "spin", "RLCX....", "", TCG, []string{"million a second", "plain kernel instructions"}, false},
		{"no interrupt", "hang", "RLCX....PI", "", TCG, []string{"board's timer"}, true},
		{"wrong result", "hang", "RLC!", "", TCG, []string{"wrong result", "identifying"}, false},
		{"wrong, then the end", "hang", "RLC!\nOK\n", "", TCG, []string{"wrong result"}, false},
		{"end without OK", "hang", "RLCX....PITU\n", "", TCG, []string{"user mode"}, true},
		{"KVM gives up", "hang", "RL", "KVM internal error. Suberror: 1\nemulation failure\n", TCG, []string{"gave up", "Suberror: 1"}, false},
		{"KVM refused", "1", "", "failed to initialize kvm: Device or resource busy\n", TCG, []string{"exit status 1", "resource busy"}, false},
		{"triple fault", "0", "R", "", TCG, []string{"ended early", "exit status 0", "real mode"}, false},
		{"child holds the pipes", "child", "RLC", "", TCG, []string{"did not end"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pids")
			bound := 1500 * time.Millisecond // a fake needs 20 ms
			if test.accel == KVM || slices.Contains([]string{"0", "1"}, test.end) || test.errors != "" {
				bound = patience // it must end by itself
			}
			started := time.Now()
			r, err := prove(t.Context(), trial{
				qemu: os.Args[0], accel: KVM, cpus: 1, bound: bound,
				env: append(os.Environ(),
					"ACCEL_TEST_QEMU="+test.end, "ACCEL_TEST_OUTPUT="+test.output,
					"ACCEL_TEST_ERRORS="+test.errors, "ACCEL_TEST_PIDS="+pids,
				),
			}, kvmLike(t))
			if err != nil {
				t.Fatal(err)
			}
			if r.Accel != test.accel || r.Reason == "" {
				t.Errorf("got %+v, want %s", r, test.accel)
			}
			// Whether a fake got its half of a CPU is the machine's affair.
			if r.unsure != test.unsure && test.end != "spin" {
				t.Errorf("unsure is %v: %+v", r.unsure, r)
			}
			for _, part := range test.reason {
				if !strings.Contains(r.Reason, part) {
					t.Errorf("reason %q lacks %q", r.Reason, part)
				}
			}
			if took := time.Since(started); took > patience/2 {
				t.Errorf("took %v", took)
			}
			mustBeGone(t, pids)
		})
	}
}

// kvmLike is a device that answers as /dev/kvm does: the real one, which the
// tests' machine has.
func kvmLike(t *testing.T) string {
	t.Helper()
	if reason := deviceFault("/dev/kvm"); reason != "" {
		t.Fatalf("these tests need /dev/kvm, working or not: %s", reason)
	}
	return "/dev/kvm"
}

func mustBeGone(t *testing.T, pids string) {
	t.Helper()
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestCanceledTrialIsAnError(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	env := []string{"ACCEL_TEST_QEMU=hang", "ACCEL_TEST_PIDS=" + pids}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // once it runs
		for ctx.Err() == nil {
			if _, err := os.Stat(pids); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := (trial{qemu: os.Args[0], bound: patience, env: env}).run(ctx, guestImage); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	mustBeGone(t, pids)
}

func TestNothingToTry(t *testing.T) {
	if _, err := (trial{qemu: "/nowhere/qemu", bound: patience}).run(t.Context(), guestImage); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no QEMU: got %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "kvm")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{filepath.Join(dir, "none"), file, "/dev/null"} {
		r, err := prove(t.Context(), trial{qemu: "/nowhere/qemu"}, device)
		if err != nil || r.Accel != TCG || !strings.Contains(r.Reason, device) || !r.unsure {
			t.Errorf("%s: got %+v, %v", device, r, err)
		}
	}
}
