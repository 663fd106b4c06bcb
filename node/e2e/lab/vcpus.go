package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// thread is a vCPU thread: files of /proc that are read again and again, for opening
// them costs more than that. Without its thread there is nothing to read in them.
type thread struct{ schedstat, stat *os.File }

// moment is what the recorder sees of a QEMU's vCPU threads in one look.
type moment struct {
	pid  int
	ns   uint64 // processor time they have used
	halt halt
}

// halt is why vCPU threads cannot execute the guest; running if they can.
type halt int

const (
	running halt = iota
	stopped      // by a signal; only another, SIGCONT or a fatal one, ends it
	ending       // killed: a thread never comes back from there to what it executed
)

// used says whether vCPU threads used processor time since an earlier look: more
// than waking up for a moment takes.
func (m moment) used(before moment) bool {
	return m.pid != 0 && m.pid == before.pid && m.ns > before.ns+uint64(time.Millisecond)
}

// ended says that what was used since an earlier look was used to end: the threads
// were stopped or ending before, and are ending now. The last of them gives the
// guest's memory back, which takes 40 to 50 ms for 128 MB. (That a stopped QEMU
// which is killed executes nothing more is tested in vm/guard.)
func (m moment) ended(before moment) bool {
	return m.halt == ending && before.halt != running
}

// sees is what is to be seen of QEMU pid now.
func (w *watched) sees(pid int) moment {
	if w.of != pid || w.reads%relook == 0 || len(w.vcpus) == 0 {
		w.close()
		w.vcpus, w.of, w.reads = vcpusOf(pid), pid, 0
	}
	w.reads++
	m := moment{pid: pid}
	text := make([]byte, 1024)
	for _, t := range w.vcpus {
		n, _ := t.schedstat.ReadAt(text, 0)
		first, _, _ := strings.Cut(string(text[:n]), " ")
		ns, err := strconv.ParseUint(first, 10, 64)
		if err == nil {
			m.ns += ns
		}
	}
	// The time comes first: a thread that is ending after it used the time was
	// not let run again in between.
	killed := false
	for i, t := range w.vcpus {
		n, err := t.stat.ReadAt(text, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		h := haltOf(text[:n], err)
		if i == 0 || h < m.halt {
			m.halt = h
		}
		killed = killed || err == nil && h == ending
	}
	// A kill is every thread's at once. One that has taken it, and has not got to say
	// that it is exiting, looks like one that runs.
	if killed {
		m.halt = ending
	}
	return m
}

// close ends looking at the vCPU threads, until they are seen again.
func (w *watched) close() {
	for _, t := range w.vcpus {
		t.schedstat.Close()
		t.stat.Close()
	}
	w.vcpus = nil
}

// haltOf reads /proc/PID/task/TID/stat (proc_pid_stat(5)); a thread without one is gone.
func haltOf(stat []byte, err error) halt {
	const (
		exiting = 0x4                              // PF_EXITING, include/linux/sched.h
		killed  = 1 << (uint(syscall.SIGKILL) - 1) // a fatal signal is SIGKILL to each thread
		flags   = 9 - 3                            // fields, counted from the one after the name
		pending = 31 - 3
	)
	if err != nil {
		return ending
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= pending {
		return running
	}
	f, _ := strconv.ParseUint(fields[flags], 10, 64)
	p, _ := strconv.ParseUint(fields[pending], 10, 64)
	switch {
	case f&exiting != 0 || p&killed != 0:
		return ending
	case fields[0] == "T":
		return stopped
	}
	return running
}

func vcpusOf(pid int) (threads []thread) {
	if pid == 0 {
		return nil
	}
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		task := tasks + "/" + e.Name()
		comm, err := os.ReadFile(task + "/comm")
		if err != nil || !strings.HasPrefix(string(comm), "CPU ") {
			continue
		}
		schedstat, err := os.Open(task + "/schedstat")
		if err != nil {
			continue
		}
		stat, err := os.Open(task + "/stat")
		if err != nil {
			schedstat.Close()
			continue
		}
		threads = append(threads, thread{schedstat, stat})
	}
	return threads
}

// ended says whether a process is gone, or only waits to be reaped.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}
