package lab

import (
	"context"
	"path/filepath"
	"strconv"
)

// The recorder looks at both hosts fifty times a second, in each of several labs
// at a time: what it can know from the last look it does not ask the kernel again.

// relook is how many looks of its own a host's sight relies on what it has seen.
const relook = 50

// watched is one host as the recorder looks at it. It is one goroutine's.
type watched struct {
	name    string
	process func(context.Context) int // of the guest's QEMU, 0: none
	runs    func(pid int) string      // the record of when a QEMU let the guest run

	vcpus []thread
	of    int // whose process's they are
	reads int
}

func (h *Host) watch(uuid string) *watched {
	s := sight{host: h, uuid: uuid}
	return &watched{
		name:    h.Name,
		process: func(context.Context) int { return s.process() },
		runs:    func(pid int) string { return filepath.Join(h.runs(), strconv.Itoa(pid)) },
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
