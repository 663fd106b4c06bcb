package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The recorder looks at both hosts fifty times a second, in each of several labs
// at a time: what it can know from the last look it does not ask the kernel again.

// relook is how many looks of its own a host's sight relies on what it has seen.
const relook = 50

// watched is one host as the recorder looks at it. It is one goroutine's.
type watched struct {
	name    string
	process func(context.Context) int // of the guest's QEMU, 0: none
	monitor func(pid int) string      // a QMP socket for the recorder alone

	vcpus []string // the vCPU threads, in /proc
	of    int      // whose process's they are
	reads int
}

func (h *Host) watch(uuid string) *watched {
	s := sight{host: h, uuid: uuid}
	return &watched{
		name:    h.Name,
		process: func(context.Context) int { return s.process() },
		monitor: func(pid int) string { return filepath.Join(h.monitors(), strconv.Itoa(pid)) },
	}
}

// sight finds a guest's QEMU among a host's processes.
type sight struct {
	host  *Host
	uuid  string
	looks int
	// strangers are processes of other networks. A QEMU begins as a fork of a process
	// of its host's network, so it never is one; but numbers are used again.
	strangers map[int]bool
}

func (s *sight) process() int {
	if s.looks%relook == 0 {
		s.strangers = map[int]bool{}
	}
	s.looks++
	pids, err := s.host.pids(s.strangers)
	if err != nil {
		return 0
	}
	return s.host.qemuAmong(pids, s.uuid)
}

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
		w.vcpus, w.of, w.reads = vcpusOf(pid), pid, 0
	}
	w.reads++
	m := moment{pid: pid}
	for _, path := range w.vcpus {
		schedstat, err := os.ReadFile(path + "/schedstat")
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(schedstat), " ")
		ns, err := strconv.ParseUint(first, 10, 64)
		if err == nil {
			m.ns += ns
		}
	}
	// The time comes first: a thread that is ending after it used the time was
	// not let run again in between.
	killed := false
	for i, path := range w.vcpus {
		stat, err := os.ReadFile(path + "/stat")
		h := haltOf(stat, err)
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

func vcpusOf(pid int) (paths []string) {
	if pid == 0 {
		return nil
	}
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		comm, err := os.ReadFile(tasks + "/" + e.Name() + "/comm")
		if err == nil && strings.HasPrefix(string(comm), "CPU ") {
			paths = append(paths, tasks+"/"+e.Name())
		}
	}
	return paths
}
