package lab

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
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
	runs    func(pid int) string      // the record of when a QEMU let the guest run
	records string                    // the directory of these records; empty: none is known of

	newest time.Time // when a record was made there last, as far as was seen
	fresh  int       // looks for which that is news

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
		records: h.runs(),
	}
}

// launched says whether a QEMU may have been launched on the host since the last call.
// Its record is there before its vCPUs are.
func (w *watched) launched() bool {
	info, err := os.Stat(w.records)
	if err != nil {
		return true
	}
	if at := info.ModTime(); !at.Equal(w.newest) {
		w.newest, w.fresh = at, freshLooks // a file system's clock may tick every 10 ms
	}
	if w.fresh == 0 {
		return false
	}
	w.fresh--
	return true
}

// freshLooks is for how many looks a host's processes are gone through again.
const freshLooks = 3

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
