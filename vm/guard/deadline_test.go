package guard

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The claim of `make bench-guard`, with -deadline.n=120 or so; a plain `go test`
// goes through the same situations a few times and claims no times.
var (
	deadlineTrials = flag.Int("deadline.n", 2, "how many deadlines to pass in each situation")
	deadlineClaim  = flag.Duration("deadline.claim", 0, "fail if a guest ticks longer than this after its deadline; 0: no claim")
)

// situations are what may have become of the agent when a lease ends.
var situations = []struct {
	name    string
	befalls func(b *bench, agent int) error
}{
	{"stopped (SIGSTOP)", func(_ *bench, agent int) error { return syscall.Kill(agent, stopSignal) }},
	{"killed (SIGKILL)", func(_ *bench, agent int) error { return syscall.Kill(agent, syscall.SIGKILL) }},
	{"paged out", (*bench).pageOut},
}

// TestLastTick shows when a busy guest has its last tick, while twice as many
// busy loops as there are processors run beside it.
func TestLastTick(t *testing.T) {
	lines := []string{fmt.Sprintf("%-18s %4s %8s %8s %8s %8s %14s", "the agent was", "n", "min", "median", "p99", "max", "stop sent, max")}
	defer func() {
		t.Log("last guest tick after the deadline in ms, " + strconv.Itoa(runtime.NumCPU()) + " processors\n" + strings.Join(lines, "\n"))
	}()
	busy(t)
	for _, s := range situations {
		b := newBench(t, "FAKE_GAP_US=0")
		b.exe = ownProgram(t)
		b.start()
		b.exe = ownProgram(t)
		var late, sent []int64
		for range *deadlineTrials {
			status := b.outlive(s.befalls)
			late = append(late, b.board.lastTick()-status.Deadline)
			sent = append(sent, status.FreezeNS)
		}
		slices.Sort(late)
		slices.Sort(sent)
		n := len(late)
		lines = append(lines, fmt.Sprintf("%-18s %4d %8s %8s %8s %8s %14s", s.name, n, ms(late[0]), ms(late[n/2]), ms(late[n*99/100]), ms(late[n-1]), ms(sent[n-1])))
		if *deadlineClaim > 0 && late[n-1] > int64(*deadlineClaim) {
			t.Errorf("the agent was %s: the guest ticked until %v after its deadline", s.name, time.Duration(late[n-1]))
		}
	}
}

func ms(ns int64) string { return strconv.FormatFloat(float64(ns)/1e6, 'f', 3, 64) }

// outlive has an agent renew, lets something befall it, and returns what the
// guard says once the guest is stopped.
func (b *bench) outlive(befalls func(*bench, int) error) Status {
	b.Helper()
	seen := b.agentBoard()
	seen.Deadline.Store(0)
	agent, _ := b.run("agent")
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	b.until("renewal", func() bool { return seen.Deadline.Load() != 0 })
	b.untilTicks()
	if err := befalls(b, agent.Process.Pid); err != nil {
		b.Fatal(err)
	}
	var s Status
	b.until("the guest is stopped", func() bool { s = b.status(); return s.Stopped })
	if s.Deadline < seen.Deadline.Load() {
		b.Errorf("frozen by deadline %d, the agent was granted %d", s.Deadline, seen.Deadline.Load())
	}
	b.mustBeStill()
	return s
}

// pageOut takes the memory of an agent away, which must not come back for it
// before the deadline, and tries the same with the guard.
func (b *bench) pageOut(agent int) error {
	if err := syscall.Kill(agent, stopSignal); err != nil {
		return err
	}
	guard := b.status().GuardPID
	agentHad, guardHad := resident(b.TB, agent), resident(b.TB, guard)
	if err := errors.Join(pageOut(agent), pageOut(guard)); err != nil {
		return err
	}
	b.Logf("paged out: agent %d KiB of %d left, guard %d of %d", resident(b.TB, agent), agentHad, resident(b.TB, guard), guardHad)
	if resident(b.TB, agent) > agentHad/2 {
		b.Error("the agent was not paged out")
	}
	if resident(b.TB, guard) < guardHad*9/10 {
		b.Error("the guard was paged out")
	}
	return nil
}

// ownProgram is a copy of this program: the kernel pages out no page of a file
// that another process maps too.
func ownProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = writeFile(path, data, true) // on the disk: no page of it is dirty
	}
	if err == nil {
		err = os.Chmod(path, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pageOut has the kernel take a process's memory away, as if the host had none:
// every page of a file, and where there is swap every other.
func pageOut(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	maps, err := os.Open("/proc/" + strconv.Itoa(pid) + "/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); err != nil || strings.Contains(lines.Text(), "[v") {
			continue
		}
		iov := [2]uintptr{from, to - from}
		// Locked memory is refused, which is what a guard wants.
		_, _, _ = syscall.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, unix.MADV_PAGEOUT, 0, 0)
	}
	return nil
}

// resident is how much of a process is in memory, in KiB.
func resident(t testing.TB, pid int) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	var size, resident int
	if err == nil {
		_, err = fmt.Sscan(string(data), &size, &resident)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() >> 10
}

// busy keeps every processor busy twice until the test ends.
func busy(t *testing.T) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GUARD_TEST_ROLE=busy")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
}
