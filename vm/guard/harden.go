package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	mclOnFault      = 4  // MCL_ONFAULT: lock pages when they are touched, not the whole binary
	guardPriority   = 40 // below the kernel's own interrupt threads (50)
	guardOOMScore   = -999
	heapLimit       = 48 << 20
	guardProcessors = 4
)

// calm readies the Go runtime: nothing may stop the loop's thread in mid-work.
// The loop allocates nothing in the steady state, so the collector has no work;
// the limit is a backstop. The loop's thread must always find a free processor
// when it wakes, also while another goroutine runs on a host with one core.
func calm() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	runtime.GOMAXPROCS(guardProcessors)
}

// hardened is what the host granted.
type hardened struct{ locked, realTime bool }

// harden protects the guard against swap, load and the OOM killer. It is called
// after the spawn (QEMU must inherit none of it) on the thread of the loop. What
// is refused is reported, not fatal: an unprivileged test host is still useful.
func harden() (hardened, error) {
	var h hardened
	var errs []error
	if err := slim(); err != nil {
		errs = append(errs, fmt.Errorf("give back memory: %w", err))
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | mclOnFault); err != nil {
		errs = append(errs, fmt.Errorf("lock memory: %w", err))
	} else {
		h.locked = true
	}
	if err := realTime(); err != nil {
		errs = append(errs, fmt.Errorf("set real-time priority: %w", err))
	} else {
		h.realTime = true
	}
	// Containers refuse it. A guard takes so little memory that it is an unlikely
	// choice of the OOM killer in any case.
	_ = writeProc("self", "oom_score_adj", guardOOMScore)
	return h, errors.Join(errs...)
}

// Harden protects the present process as a guard protects itself, for one that
// stands beside the guards. What is refused is in the error; the rest is in force.
func Harden() error {
	_, err := harden()
	return err
}

// realTime puts every thread of the guard under SCHED_FIFO, all with one priority.
//
// The thread of the loop alone would not do. When it returns from a system call
// while the runtime's monitor thread is busy with it, it waits by sched_yield, which
// never lets a thread of the normal class on the same processor go on: both would
// stand until the kernel throttles real-time threads. With equal priorities the
// yield does what the runtime expects. Threads started later inherit the priority;
// the guard starts no process any more.
func realTime() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: guardPriority}
	return schedule(&attr)
}

// ordinary takes it back.
func ordinary() {
	_ = schedule(&unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL})
}

func schedule(attr *unix.SchedAttr) error {
	done := map[int]bool{}
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		before := len(done)
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := unix.SchedSetAttr(tid, attr, 0); err != nil && err != unix.ESRCH {
				return err
			}
			done[tid] = true
		}
		if len(done) == before {
			return nil // whatever thread comes now was started by one of these
		}
	}
}

// limit applies l to QEMU right after its start, before it has other threads.
func (c *child) limit(l Limits) error {
	var errs []error
	if l.OOMScoreAdj != nil { // containers refuse it, as for the guard itself
		if err := writeProc(strconv.Itoa(c.pid), "oom_score_adj", *l.OOMScoreAdj); !errors.Is(err, fs.ErrPermission) {
			errs = append(errs, err)
		}
	}
	if l.Nice != nil {
		errs = append(errs, unix.Setpriority(unix.PRIO_PROCESS, c.pid, *l.Nice))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set the limits of QEMU: %w", err)
	}
	return nil
}

func writeProc(pid, file string, value int) error {
	return os.WriteFile("/proc/"+pid+"/"+file, []byte(strconv.Itoa(value)), 0)
}
