package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"vmctl/node/e2e/lab"
)

// idleTime is how long a quiet agent is watched.
const idleTime = 30 * time.Second

// idle measures an agent that looks after one unprotected guest in a cluster
// with a witness: resident memory and processor time.
func idle(ctx context.Context, binary string, files lab.GuestFiles) (table string, err error) {
	err = inLab(ctx, binary, func(l *lab.Lab) error {
		if err := l.Form(ctx); err != nil {
			return err
		}
		v, err := l.A.CreateBenchGuest(ctx, files)
		if err != nil {
			return err
		}
		if _, err := l.WaitAnswer(ctx, time.Minute); err != nil {
			return err
		}
		guard, err := lab.Parent(v.PID)
		if err != nil {
			return err
		}
		var rows strings.Builder
		processes := []struct {
			name string
			pid  int
		}{{"agent of the owner", l.A.Agent().Pid}, {"agent of the peer", l.B.Agent().Pid}, {"witness", l.W.Agent().Pid}, {"guard", guard}}
		var before []time.Duration
		for _, p := range processes {
			used, err := cpuTime(p.pid)
			if err != nil {
				return err
			}
			before = append(before, used)
		}
		time.Sleep(idleTime)
		for i, p := range processes {
			used, err := cpuTime(p.pid)
			if err != nil {
				return err
			}
			rss, err := resident(p.pid)
			if err != nil {
				return err
			}
			fmt.Fprintf(&rows, "| %s | %.1f | %.2f |\n", p.name, float64(rss)/1e6, 100*float64(used-before[i])/float64(idleTime))
		}
		table = "# Idle\n\nOne unprotected Linux guest on node a, a cluster of two nodes and a witness, leases renewed five times a second.\n" +
			"Resident memory (VmRSS) at the end, processor time (utime+stime) over " + idleTime.String() + ". Command: `make bench`.\n\n" +
			"| process | MB resident | % of one core |\n|---|---|---|\n" + rows.String() + "\nGoal for an agent: < 60 MB, < 2 %.\n"
		return nil
	})
	return table, err
}

// stat gives the fields of /proc/PID/stat behind the program's name.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	text := string(data)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:]), nil
}

// cpuTime is utime + stime; the kernel counts in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// resident is VmRSS in bytes.
func resident(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
