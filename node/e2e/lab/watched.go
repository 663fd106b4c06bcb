package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

	vcpus []string // the files of the vCPU threads' times
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

// vcpuTime is the processor time, in ns, of the vCPU threads of QEMU pid.
func (w *watched) vcpuTime(pid int) (total uint64) {
	if w.of != pid || w.reads%relook == 0 || len(w.vcpus) == 0 {
		w.vcpus, w.of, w.reads = vcpusOf(pid), pid, 0
	}
	w.reads++
	for _, path := range w.vcpus {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseUint(first, 10, 64)
		if err == nil {
			total += ns
		}
	}
	return total
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
			paths = append(paths, tasks+"/"+e.Name()+"/schedstat")
		}
	}
	return paths
}
