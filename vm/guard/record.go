package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Reason says on whose account QEMU ended.
type Reason string

// Reasons of an ExitRecord.
const (
	ReasonExited     Reason = "exited"     // by itself, or by a signal that was not the guard's
	ReasonRevoked    Reason = "revoked"    // killed: its epoch was revoked
	ReasonKilled     Reason = "killed"     // killed on request
	ReasonIsolated   Reason = "isolated"   // killed: its lease ended, and its isolation is Stop
	ReasonTerminated Reason = "terminated" // asked to end by Terminate or by a signal to the guard
	ReasonExpired    Reason = "expired"    // never started: the deadline had passed
	ReasonFailed     Reason = "failed"     // never started: see Message
)

// ExitRecord is what a guard leaves behind at Launch.ExitPath.
type ExitRecord struct {
	LaunchID string    `json:"launch_id"`
	Guest    Guest     `json:"guest"`
	Epoch    uint64    `json:"epoch"`
	PID      int       `json:"pid"`
	Code     int       `json:"code"`   // exit status; -1 if a signal ended QEMU
	Signal   int       `json:"signal"` // 0 if QEMU exited
	Time     time.Time `json:"time"`
	Reason   Reason    `json:"reason"`
	Message  string    `json:"message,omitempty"` // why it could not be started
	Output   string    `json:"output,omitempty"`  // the last lines QEMU wrote
}

func (r *ExitRecord) String() string {
	var b strings.Builder
	switch {
	case r.Message != "":
		fmt.Fprintf(&b, "not started: %s", r.Message)
	case r.Signal != 0:
		fmt.Fprintf(&b, "QEMU (pid %d) ended by signal %d (%s)", r.PID, r.Signal, syscall.Signal(r.Signal))
	default:
		fmt.Fprintf(&b, "QEMU (pid %d) exited with status %d", r.PID, r.Code)
	}
	if r.Reason != ReasonExited && r.Message == "" {
		fmt.Fprintf(&b, ", %s", r.Reason)
	}
	if r.Output != "" {
		fmt.Fprintf(&b, "; its last output:\n%s", strings.TrimRight(r.Output, "\n"))
	}
	return b.String()
}

// ReadExitRecord reads the record of a guest that ended. A missing file means
// that it still runs, or that its guard was killed.
func ReadExitRecord(path string) (ExitRecord, error) {
	var r ExitRecord
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return ExitRecord{}, fmt.Errorf("read exit record: %w", err)
	}
	return r, nil
}

func writeExitRecord(path string, r *ExitRecord) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = writeFile(path, data, true)
	}
	if err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// tail returns the last bytes, at most 2 KiB, that were appended to the file
// after offset from. It is used for messages only and never fails.
func tail(path string, from int64) string {
	const limit = 2 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	if from > info.Size() {
		from = 0 // it was cut since
	}
	from = max(from, info.Size()-limit)
	data, err := io.ReadAll(io.NewSectionReader(f, from, limit))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(data), "\uFFFD")
}

// fileSize is 0 for a file that is not there.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
