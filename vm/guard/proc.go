package guard

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// startTime reads when a process started, in clock ticks since boot. Together with
// the pid it names a process for good: a reused pid has another start time.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	return parseStartTime(data)
}

// parseStartTime finds field 22. The second field is the program's name in
// parentheses, which may itself hold spaces and parentheses.
func parseStartTime(stat []byte) (uint64, error) {
	const field = 22 - 3 // counted from the one after the name
	i := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[i+1:])
	if i < 0 || len(fields) <= field {
		return 0, fmt.Errorf("read start time: unexpected form of /proc/PID/stat: %.80q", stat)
	}
	n, err := strconv.ParseUint(string(fields[field]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	return n, nil
}
