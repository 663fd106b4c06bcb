package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// vcpu says how long the vCPU threads of a QEMU have run, and how long they
// were ready and waited for a processor of this machine: a busy machine shows.
func vcpu(pid int) (ran, waited time.Duration) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return 0, 0
	}
	for _, task := range tasks {
		comm, err := os.ReadFile(filepath.Join(task, "comm"))
		if err != nil || !strings.HasPrefix(string(comm), "CPU ") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue
		}
		var r, w int64
		if _, err := fmt.Sscan(string(stat), &r, &w); err == nil {
			ran, waited = ran+time.Duration(r), waited+time.Duration(w)
		}
	}
	return ran, waited
}
