package main

import (
	"context"
	"fmt"
	"os"
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

// linked waits until the witness has that many sockets: one listens, and the
// rest are links.
func linked(ctx context.Context, pid, links int) error {
	const patience = 2 * time.Minute
	for began := time.Now(); ; {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return err
		}
		sockets := 0
		for _, e := range entries {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
			if strings.HasPrefix(target, "socket:") {
				sockets++
			}
		}
		if sockets > links {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%d of %d links after %s", sockets-1, links, patience)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
