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

// situations are what may have become of the agent when a lease ends. A guest
// whose isolation is Stop is killed, so each of its deadlines is another guest's.
var situations = []struct {
	name      string
	isolation Isolation
	befalls   func(b *bench, agent int) error
}{
	{"stopped (SIGSTOP)", Freeze, func(_ *bench, agent int) error { return syscall.Kill(agent, stopSignal) }},
	{"killed (SIGKILL)", Freeze, func(_ *bench, agent int) error { return syscall.Kill(agent, syscall.SIGKILL) }},
	{"paged out", Freeze, (*bench).pageOut},
	{"killed (SIGKILL)", Stop, func(_ *bench, agent int) error { return syscall.Kill(agent, syscall.SIGKILL) }},
}

// TestLastTick shows when a busy guest has its last tick, while twice as many
// busy loops as there are processors run beside it.
func TestLastTick(t *testing.T) {
	lines := []string{fmt.Sprintf("%-18s %-9s %4s %8s %8s %8s %8s", "the agent was", "isolation", "n", "min", "median", "p99", "max")}
	defer func() {
		t.Log("last guest tick after the deadline in ms, " + strconv.Itoa(runtime.NumCPU()) + " processors\n" + strings.Join(lines, "\n"))
	}()
	busy(t)
	for _, s := range situations {
		var b *bench
		var late []int64
		for range *deadlineTrials {
			if b == nil || s.isolation == Stop {
				b = apart(t, s.isolation)
			}
			deadline := b.outlive(s.befalls)
			late = append(late, b.board.lastTick()-deadline)
		}
		slices.Sort(late)
		n := len(late)
		lines = append(lines, fmt.Sprintf("%-18s %-9s %4d %8s %8s %8s %8s", s.name, s.isolation, n, ms(late[0]), ms(late[n/2]), ms(late[n*99/100]), ms(late[n-1])))
		if *deadlineClaim > 0 && late[n-1] > int64(*deadlineClaim) {
			t.Errorf("the agent was %s: the guest ticked until %v after its deadline", s.name, time.Duration(late[n-1]))
		}
	}
}

// apart is a guest whose guard and agents have program files of their own.
func apart(t *testing.T, i Isolation) *bench {
	t.Helper()
	b := newBench(t, "FAKE_GAP_US=0")
	b.launch.Isolation = i
	b.exe = ownProgram(t)
	b.start()
	b.exe = ownProgram(t)
	return b
}

func ms(ns int64) string { return strconv.FormatFloat(float64(ns)/1e6, 'f', 3, 64) }

// outlive has an agent renew, lets something befall it, and returns the deadline
// that the guest was stopped at.
func (b *bench) outlive(befalls func(*bench, int) error) int64 {
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
	if b.launch.Isolation == Stop {
		if r := b.untilDone(); r.Reason != ReasonIsolated {
			b.Errorf("%+v", r)
		}
		return seen.Deadline.Load()
	}
	var s Status
	b.until("the guest is stopped", func() bool { s = b.status(); return s.Stopped })
	if s.Deadline < seen.Deadline.Load() {
		b.Errorf("frozen by deadline %d, the agent was granted %d", s.Deadline, seen.Deadline.Load())
	}
	b.mustBeStill()
	return s.Deadline
}

// pageOut takes the memory of an agent away, which must not come back for it
// before the deadline, and tries the same with the guard.
func (b *bench) pageOut(agent int) error {
	if err := syscall.Kill(agent, stopSignal); err != nil {
		return err
	}
	guard := b.status().GuardPID
	agentHad, guardHad := resident(b.TB, agent, "RssFile"), resident(b.TB, guard, "VmRSS")
	if err := errors.Join(pageOut(agent), pageOut(guard)); err != nil {
		return err
	}
	agentHas, guardHas := resident(b.TB, agent, "RssFile"), resident(b.TB, guard, "VmRSS")
	b.Logf("paged out: of the agent's program %d kB of %d left, of the guard %d of %d", agentHas, agentHad, guardHas, guardHad)
	if agentHas > agentHad/2 {
		b.Error("the agent was not paged out")
	}
	if guardHas < guardHad*9/10 {
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

// resident is a field of a process's memory in kB.
func resident(t testing.TB, pid int, field string) (kB int) {
	t.Helper()
	text := procStatus(t, "/proc/"+strconv.Itoa(pid)+"/status", field)[field]
	if _, err := fmt.Sscan(text, &kB); err != nil {
		t.Fatalf("%s of %d: %q: %v", field, pid, text, err)
	}
	return kB
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
