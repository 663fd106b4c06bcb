package vm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"vmctl/vm/guard"
)

// ExitReason says why a guest ended.
type ExitReason string

// Values of ExitReason.
const (
	ExitShutdown ExitReason = "guest-shutdown" // the guest switched itself off
	ExitStopped  ExitReason = "stopped"        // somebody here told it to end
	ExitPanicked ExitReason = "guest-panicked" // the guest's kernel gave up
	ExitCrashed  ExitReason = "crashed"        // QEMU failed or was killed
	ExitRevoked  ExitReason = "revoked"        // the guard ended it: no lease
	ExitIsolated ExitReason = "isolated"       // the guard ended it at the end of its lease, as its spec says
	ExitFailed   ExitReason = "launch-failed"  // it never came up
	ExitLost     ExitReason = "lost"           // no record: guard killed, or host reset
)

// Exit is how a guest ended.
type Exit struct {
	Reason ExitReason
	Code   int       // QEMU's exit status, -1 if a signal ended it
	Signal int       // 0 if QEMU exited
	Time   time.Time // zero if unknown
	Output string    // the last lines QEMU wrote
}

// String is one line for people.
func (e Exit) String() string {
	text := string(e.Reason)
	switch {
	case e.Signal != 0:
		text += fmt.Sprintf(" (signal %d)", e.Signal)
	case e.Code > 0:
		text += fmt.Sprintf(" (exit status %d)", e.Code)
	}
	if e.Output != "" && e.Reason != ExitShutdown && e.Reason != ExitStopped {
		text += ": " + e.Output
	}
	return text
}

// ending is what was seen of a guest's end before it was gone.
type ending struct {
	requested bool   // through this process
	cause     string // of QEMU's SHUTDOWN event
	panicked  bool
}

// exit puts what was seen together with what the guard recorded.
func (e ending) exit(record *guard.ExitRecord) Exit {
	if record == nil {
		exit := Exit{Reason: ExitLost, Code: -1}
		if e.requested {
			exit.Reason = ExitStopped
		}
		return exit
	}
	exit := Exit{Code: record.Code, Signal: record.Signal, Time: record.Time, Output: messageOf(record)}
	switch {
	case record.Reason == guard.ReasonRevoked || record.Reason == guard.ReasonExpired:
		exit.Reason = ExitRevoked
	case record.Reason == guard.ReasonIsolated:
		exit.Reason = ExitIsolated
	case record.Reason == guard.ReasonFailed:
		exit.Reason = ExitFailed
	case e.requested || record.Reason == guard.ReasonKilled || record.Reason == guard.ReasonTerminated,
		e.cause == "host-qmp-quit", e.cause == "host-signal", e.cause == "host-ui":
		exit.Reason = ExitStopped
	case e.panicked || e.cause == "guest-panic":
		exit.Reason = ExitPanicked
	case record.Signal != 0 || record.Code != 0:
		exit.Reason = ExitCrashed
	default:
		exit.Reason = ExitShutdown
	}
	return exit
}

// messageOf is QEMU's own last words, without its name on every line.
func messageOf(record *guard.ExitRecord) string {
	text := record.Message
	if output := strings.TrimSpace(record.Output); output != "" {
		if text != "" {
			text += ": "
		}
		text += output
	}
	return strings.ReplaceAll(text, "qemu-system-x86_64: ", "")
}

// LastExit tells how the guest ended the last time, if it has a record. It is
// for a guest that ended while nobody watched.
func LastExit(l Layout) (exit Exit, found bool, err error) {
	record, err := guard.ReadExitRecord(l.Exit())
	if errors.Is(err, os.ErrNotExist) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, fmt.Errorf("read how the guest ended: %w", err)
	}
	return ending{}.exit(&record), true, nil
}
