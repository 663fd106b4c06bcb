package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var errDead = errors.New("the process has died")

// reaper ends the world at the change with number at: with it, every later
// change fails, as for a process that is gone.
type reaper struct {
	mu    sync.Mutex
	at    int
	torn  bool
	n     int
	trace []string
	kill  bool // really
}

func (r *reaper) before(change, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	r.trace = append(r.trace, change+" "+filepath.Base(path))
	switch {
	case r.at == 0 || r.n < r.at:
		return nil
	case r.kill && r.n == r.at && !r.torn:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case r.n == r.at && r.torn:
		return fmt.Errorf("%w (%w)", errDead, errTorn)
	}
	return errDead
}

// story is a replica's life: a full image, two deltas, a restarted agent's
// full image, a delta. It goes on until something fails and tells each
// acknowledged sequence.
func story(t testing.TB, cfg Config, src *source, acked func(uint64)) {
	r, err := Open(context.Background(), cfg)
	if err != nil {
		return
	}
	defer r.Close()
	src.churn = 6
	for round := range 5 {
		if round == 3 {
			src.restart()
		}
		if round == 0 || round == 3 {
			l, done := dial(r)
			defer func() { _ = l.Close(); <-done }()
			if _, err := src.sender.Attach(context.Background(), l); err != nil {
				return
			}
		}
		n, _, err := src.checkpoint()
		if err != nil {
			return
		}
		acked(n)
	}
}

// withReaper puts a reaper before all changes of a replica and its disks.
func withReaper(cfg Config, r *reaper) Config {
	cfg.before = r.before
	disks := cfg.Disks.(testDisks)
	disks.before = r.before
	cfg.Disks = disks
	return cfg
}

func countChanges(t *testing.T) []string {
	t.Helper()
	cfg, count := peerIn(t, t.TempDir()), &reaper{}
	last := uint64(0)
	src := newSource(t, 1, 3, cfg.Disks.(testDisks))
	story(t, withReaper(cfg, count), src, func(n uint64) { last = n })
	if last != 5 {
		t.Fatalf("undisturbed, checkpoint %d was reached", last)
	}
	if n := verify(t, cfg, src.instants, 4); n != 5 {
		t.Fatalf("undisturbed, the replica holds %d", n)
	}
	return count.trace
}

// However far a crash lets it come, the replica is the last acknowledged
// checkpoint or the one after it, and whole. A second crash, anywhere in the
// recovery from the first, changes nothing about that. The race detector sees one
// in five of them; make sim crashes at all.
func TestCrashAtEveryChange(t *testing.T) {
	trace, step := countChanges(t), 1
	if underRace {
		step = 5
	}
	for at := 1; at <= len(trace); at += step {
		for _, torn := range []bool{false, true} {
			if torn && !strings.HasPrefix(trace[at-1], "write") && !strings.HasPrefix(trace[at-1], "page") {
				continue
			}
			for again, more := 0, true; more; again++ {
				if !t.Run(fmt.Sprintf("%d-%v-%d", at, torn, again), func(t *testing.T) {
					more = crashTwice(t, &reaper{at: at, torn: torn}, &reaper{at: again}) && again < 6
				}) {
					return
				}
			}
		}
	}
}

// crashTwice tells whether the second crash came within the recovery.
func crashTwice(t *testing.T, first, second *reaper) bool {
	cfg := peerIn(t, t.TempDir())
	src, acked := newSource(t, 1, 3, cfg.Disks.(testDisks)), uint64(0)
	story(t, withReaper(cfg, first), src, func(n uint64) { acked = n })
	if second.at > 0 {
		if r, err := Open(context.Background(), withReaper(cfg, second)); err == nil {
			_ = r.Close()
		}
	}
	if n := verify(t, cfg, src.instants, 4); n != acked && n != acked+1 {
		t.Fatalf("crash before %s: replica holds %d, acknowledged was %d", first.trace[min(first.at, len(first.trace))-1], n, acked)
	}
	return second.n >= second.at && first.at%7 == 0
}

// The same with a process that is really killed.
func TestKilledAtEveryChange(t *testing.T) {
	trace := countChanges(t)
	// The instants are the same in every process: the guest is driven by a seed.
	reference := peerIn(t, t.TempDir())
	src := newSource(t, 1, 3, reference.Disks.(testDisks))
	story(t, reference, src, func(uint64) {})
	for at := 1; at <= len(trace)+1; at += 3 {
		dir := t.TempDir()
		child := exec.Command(os.Args[0], "-test.run=^TestChildOfKilled$", "-test.count=1")
		child.Env = append(os.Environ(), "VMCTL_TEST_CHILD="+dir, "VMCTL_TEST_KILL="+strconv.Itoa(at))
		out, err := child.CombinedOutput()
		var exit *exec.ExitError
		if killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL; killed != (at <= len(trace)) {
			t.Fatalf("child with kill at %d of %d: %v\n%s", at, len(trace), err, out)
		}
		data, _ := os.ReadFile(filepath.Join(dir, "acked"))
		acked, _ := strconv.ParseUint(string(data), 10, 64)
		if n := verify(t, peerIn(t, dir), src.instants, 4); n != acked && n != acked+1 {
			t.Fatalf("killed before %s: replica holds %d, acknowledged was %d", trace[min(at, len(trace))-1], n, acked)
		}
	}
}

// TestChildOfKilled is the process that TestKilledAtEveryChange starts.
func TestChildOfKilled(t *testing.T) {
	dir := os.Getenv("VMCTL_TEST_CHILD")
	if dir == "" {
		return
	}
	at, err := strconv.Atoi(os.Getenv("VMCTL_TEST_KILL"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := peerIn(t, dir)
	story(t, withReaper(cfg, &reaper{at: at, kill: true}), newSource(t, 1, 3, cfg.Disks.(testDisks)), func(n uint64) {
		if err := os.WriteFile(filepath.Join(dir, "acked"), strconv.AppendUint(nil, n, 10), 0o600); err != nil {
			t.Fatal(err)
		}
	})
}

// A commit's changes come in the one order that is safe.
func TestOrderOfACommit(t *testing.T) {
	trace := strings.Join(countChanges(t), "\n")
	name := func(n int, suffix string) string { return fmt.Sprintf("%s-%016x-%016x.%s", guestName, 3, n, suffix) }
	tail := func(changes ...string) {
		t.Helper()
		at := 0
		for _, change := range changes {
			i := strings.Index(trace[at:], change+"\n")
			if i < 0 {
				t.Fatalf("%q does not follow in:\n%s", change, trace[at:])
			}
			at += i + len(change)
		}
	}
	second := trace[strings.Index(trace, "create "+name(2, "delta")):strings.Index(trace, "create "+name(3, "delta"))]
	if i, j := strings.Index(second, "rename checkpoint"), strings.Index(second, "page "); i < 0 || j < i {
		t.Errorf("RAM is written before the commit point:\n%s", second)
	}
	tail("create "+name(2, "delta"), "write "+name(2, "delta"), "waitmark disks", "disksync disks", "create checkpoint.new",
		"write checkpoint.new", "sync checkpoint.new", "rename checkpoint", "syncdir state", "page "+name(1, "ram"),
		"remove "+name(2, "delta"), "drop disks")
	tail("create "+name(4, "ram"), "page "+name(4, "ram"), "waitmark disks", "disksync disks", "rename checkpoint", "syncdir state",
		"remove "+name(1, "ram"), "drop disks")
}

// TakeOver can be repeated after a crash anywhere in it, and old frames are
// refused whatever became of it.
func TestTakeOverCrashesAtEveryChange(t *testing.T) {
	for at, more := 1, true; more; at++ {
		if !t.Run(fmt.Sprint(at), func(t *testing.T) { more = takeOverTwice(t, at) }) {
			return
		}
	}
}

// takeOverTwice tells whether the crash came within the takeover.
func takeOverTwice(t *testing.T, at int) bool {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 2, 3, cfg.Disks.(testDisks))
	story(t, cfg, src, func(uint64) {})
	crash := &reaper{at: at}
	r := mustOpen(t, withReaper(cfg, crash))
	c, err := r.TakeOver(context.Background(), 7)
	if err == nil {
		_, err = r.Activate(context.Background())
	}
	fenced := mustFloor(t, r)
	if r.Close() != nil || fenced != 7 {
		t.Fatalf("crash at %d: floor %d", at, fenced)
	}
	if err == nil { // what is left to crash is cleaning up
		if disk, err := os.ReadFile(c.DiskPaths[0]); err != nil || string(disk) != "disk of 5" {
			t.Fatalf("crash at %d: disk is %q, %v", at, disk, err)
		}
	} else if n := verify(t, cfg, src.instants, 7); n != 5 {
		t.Fatalf("crash at %d: took over %d", at, n)
	}
	r = mustOpen(t, cfg)
	l, _ := dial(r)
	if _, err := src.sender.Attach(context.Background(), l); !errors.Is(err, ErrStale) {
		t.Fatalf("crash at %d: old owner attached: %v", at, err)
	}
	over := err == nil && crash.n < at
	if over && at < 11 {
		t.Fatalf("only %d changes in a takeover: %v", at, crash.trace)
	}
	return !over
}

func mustFloor(t testing.TB, r *Replica) uint64 { return mustStatus(t, r).Floor }
