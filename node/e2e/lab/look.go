package lab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Tail is the last lines of a file.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	return LastLines(data, lines)
}

// LastLines are the last lines of a text.
func LastLines(text []byte, lines int) string {
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// Since are the bytes of a file from an offset on, none if it is shorter.
func Since(path string, offset int64) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	return data[min(offset, int64(len(data))):]
}

// Contains says whether a file has a word in it.
func Contains(path, word string) bool {
	data, err := os.ReadFile(path)
	return err == nil && bytes.Contains(data, []byte(word))
}

// listens says whether somebody listens on a TCP port in a process's network. Nobody
// is bothered by a connection.
func listens(pid, port int) error {
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) { // proc_net_tcp: number, local and remote address, state
			const listen = "0A"
			f := strings.Fields(line)
			if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == listen {
				return nil
			}
		}
	}
	return fmt.Errorf("nobody listens on port %d", port)
}

// Parent is the parent of a process.
func Parent(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	return strconv.Atoi(fields[1])
}
