package store

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// holder names the process that has the lock, as well as the kernel tells: in
// a container it may be out of sight.
func holder(file *os.File) string {
	const unknown = "another vmctl process"
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer func() { _ = locks.Close() }()
	pid := holderIn(bufio.NewScanner(locks), fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino))
	if pid == "" {
		return unknown
	}
	command, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || len(command) == 0 {
		return unknown + " (pid " + pid + ")"
	}
	words := bytes.ReplaceAll(bytes.TrimRight(command, "\x00"), []byte{0}, []byte{' '})
	return fmt.Sprintf("%s (pid %s: %.80s)", unknown, pid, words)
}

// holderIn finds the line of /proc/locks for a file ("major:minor:inode"), as in
// "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF", and returns its pid.
func holderIn(lines *bufio.Scanner, id string) string {
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == id && f[4] != "0" && f[4] != "-1" {
			return f[4]
		}
	}
	return ""
}
