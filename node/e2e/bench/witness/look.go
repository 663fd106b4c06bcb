package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// figures is what one measurement found.
type figures struct {
	pairs         int
	span          time.Duration
	before, after sight
	sent          int // heartbeats
	took          []time.Duration
	porter        int64 // bytes resident at most in the process for handshakes
}

// sight is the witness at one instant.
type sight struct {
	at              time.Time
	rss, anon, file int64 // bytes
	most            int64 // bytes resident, at most, since it was forgotten
	cpu             time.Duration
	bytes, packets  int64 // on the loopback: both directions, once each
}

func look(pid int) (s sight, err error) {
	s.at = time.Now()
	for key, to := range map[string]*int64{"VmRSS:": &s.rss, "RssAnon:": &s.anon, "RssFile:": &s.file, "VmHWM:": &s.most} {
		if *to, err = statusKB(pid, key); err != nil {
			return s, err
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, ticks := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(ticks, 10, 64)
		if err != nil {
			return s, err
		}
		s.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	if s.bytes, err = loopback("tx_bytes"); err != nil {
		return s, err
	}
	s.packets, err = loopback("tx_packets")
	return s, err
}

// forgetMost has the kernel count a process's most resident memory anew.
func forgetMost(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

func statusKB(pid int, key string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, key)
}

// loopback reads a counter of this namespace's only interface: /proc/self/net
// is of this process, where /sys may be of the namespace it was mounted in.
func loopback(counter string) (int64, error) {
	data, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return 0, err
	}
	column := map[string]int{"tx_bytes": 8, "tx_packets": 9}[counter]
	for line := range strings.Lines(string(data)) {
		if values, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			return strconv.ParseInt(strings.Fields(values)[column], 10, 64)
		}
	}
	return 0, fmt.Errorf("no loopback in /proc/self/net/dev")
}

// linked waits until the witness has that many links.
func linked(ctx context.Context, pid, links int) error {
	const patience = 2 * time.Minute
	for began := time.Now(); ; {
		n, err := connections(pid)
		if err != nil {
			return err
		}
		if n >= links {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%d of %d links after %s", n, links, patience)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connections counts the TCP connections that a process holds: not its
// listener, nor its line to the process for handshakes.
func connections(pid int) (n int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return 0, err
	}
	established := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 9 && f[3] == "01" {
			established["socket:["+f[9]+"]"] = true
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if target, _ := os.Readlink(filepath.Join(dir, e.Name())); established[target] {
			n++
		}
	}
	return n, nil
}

// porters are the processes that the witness has for handshakes.
func porters(pid int) (pids []int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that ended
		}
		for _, text := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(text)
			if err != nil {
				return nil, err
			}
			pids = append(pids, child)
		}
	}
	return pids, err
}

// porterMost is the most that the process for handshakes had resident.
func porterMost(pid int) (most int64, err error) {
	pids, err := porters(pid)
	for _, child := range pids {
		n, err := statusKB(child, "VmHWM:")
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	return most, err
}

// alone waits until the witness is one process: that for handshakes would be
// missing from the sums.
func alone(ctx context.Context, pid int, patience time.Duration) error {
	for began := time.Now(); ; {
		pids, err := porters(pid)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Since(began) > patience {
			return fmt.Errorf("the process for handshakes, %v, is there: links are made anew, this machine is too busy", pids)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
