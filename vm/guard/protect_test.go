package guard

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// procStatus reads fields of /proc/PID/.../status.
func procStatus(t testing.TB, path, fields string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(`+fields+`):\s*(.*)$`).FindAllStringSubmatch(string(data), -1) {
		found[m[1]] = m[2]
	}
	return found
}

// The guard is protected from load and swap, QEMU inherits nothing of it. What it
// costs is only shown: the binary around it varies.
func TestProtectionAndFootprint(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	for range 200 {
		b.lapse(time.Hour)
	}
	s := b.status()
	of := procStatus(t, "/proc/"+strconv.Itoa(s.GuardPID)+"/status", "VmRSS|VmLck|RssAnon|Threads")
	t.Logf("guard: %v", of)
	if !s.MemoryLocked || !s.RealTime {
		t.Errorf("the guard was not granted what it asks for; run the tests as root: %+v", s)
	}
	if of["VmLck"] == "0 kB" {
		t.Error("the guard's memory is not locked")
	}
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(s.GuardPID) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if attr, err := unix.SchedGetAttr(tid, 0); err != nil || attr.Policy != unix.SCHED_FIFO || attr.Priority != guardPriority {
			t.Errorf("scheduling of the guard's thread %d: %+v, %v", tid, attr, err)
		}
	}
	if attr, err := unix.SchedGetAttr(s.PID, 0); err != nil || attr.Policy != unix.SCHED_NORMAL {
		t.Errorf("scheduling of QEMU: %+v, %v", attr, err)
	}
	if q := procStatus(t, "/proc/"+strconv.Itoa(s.PID)+"/status", "VmLck"); q["VmLck"] != "0 kB" {
		t.Errorf("QEMU's memory is locked: %v", q)
	}
}

// What only the start of a program needed is given back, and the program works on.
func TestSlim(t *testing.T) {
	before := resident(t, os.Getpid(), "RssFile")
	if err := slim(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, os.Getpid(), "RssFile"); after > before*3/4 {
		t.Errorf("%d kB of the program are in memory, %d were before", after, before)
	}
}

// A stop for the process alone leaves the other threads running until one of them
// is scheduled to take it; this shows that each got its own.
func TestEveryThreadIsSentTheStop(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	b.untilTicks()
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(b.client.PID()) + "/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, path := range threads {
		pending, err := strconv.ParseUint(procStatus(t, path, "SigPnd")["SigPnd"], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if pending&(1<<(unix.SIGSTOP-1)) != 0 {
			sent++
		}
	}
	if sent < len(threads)/2 { // whoever took it has none pending any more
		t.Errorf("the stop is pending for %d of %d threads", sent, len(threads))
	}
}

// A renewal that is read after the deadline must find the guest frozen, also when
// the deadline passed after the loop woke up.
func TestDeadlineBeforeRenewal(t *testing.T) {
	runtime.LockOSThread() // spawn ties the child to this thread
	dir := t.TempDir()
	l := Launch{Argv: []string{"sleep", "60"}, LogPath: dir + "/log", Epoch: 7, DeadlineNS: soon(20 * time.Millisecond)}
	g, send := loopForTest(t, &l)
	var err error
	if g.child, err = spawn(&l); err != nil {
		t.Fatal(err)
	}
	defer g.wait()
	defer g.kill(ReasonKilled)
	for Now() < l.DeadlineNS {
		runtime.Gosched()
	}
	if got := send("1 1 renew 7 " + strconv.FormatInt(Forever, 10)); !strings.Contains(got, " ok ") {
		t.Fatal(got)
	}
	if g.freezes != 1 || g.frozen {
		t.Errorf("a renewal overtook the missed deadline: %d freezes, frozen %v", g.freezes, g.frozen)
	}
}
