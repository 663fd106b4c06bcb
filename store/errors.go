package store

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

var (
	// ErrNotFound: no row with this key, or an empty log.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the row is not at the revision the caller expected.
	ErrConflict = errors.New("changed by someone else")
	// ErrStaleEpoch: the row was already written under a higher epoch.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("in use by another process")
	// ErrSchema: the file is of a newer version, or of another program.
	ErrSchema = errors.New("schema version not supported")
	// ErrCorrupt: the file or a record in it is damaged.
	ErrCorrupt = errors.New("damaged data")
	// ErrFull: no space on the file system; nothing of the change was stored.
	ErrFull = errors.New("no space on the file system")
	// ErrUncertain: the last step of a commit failed, so the change may or may
	// not survive a power cut. The DB refuses further writes until reopened.
	ErrUncertain = errors.New("outcome of the commit unknown")
	// ErrClosed: the DB or the transaction has ended.
	ErrClosed = errors.New("closed")
	// ErrReadOnly: a write inside View.
	ErrReadOnly = errors.New("write in a read-only transaction")
)

// full reports whether err is the system's way to say there is no space. bbolt
// flattens some system errors to text, so the text counts too.
func full(err error) bool {
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, no) || strings.Contains(err.Error(), no.Error()) {
			return true
		}
	}
	return false
}

// explainFull gives an error for lack of space its sentinel and advice.
func explainFull(err error, path string) error {
	if !full(err) || errors.Is(err, ErrFull) {
		return err
	}
	return fmt.Errorf("%w of %s (%w); nothing was stored, free some space and try again", ErrFull, path, err)
}

// corrupt names what is damaged in the file and what can be done.
func corrupt(path, what string, args ...any) error {
	return fmt.Errorf("%w in %s: %s; stop vmctl and put a backup of this file in its place (%s.v*.bak or your own), "+
		"or move it away to begin with an empty one", ErrCorrupt, path, fmt.Sprintf(what, args...), path)
}
