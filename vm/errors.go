package vm

import (
	"errors"
	"fmt"
	"strings"
)

// What can be wrong with a guest. Test with errors.Is.
var (
	// ErrBadSpec: the user must change the spec.
	ErrBadSpec = errors.New("bad spec")
	// ErrInUse: a disk, tap or name belongs to another guest.
	ErrInUse = errors.New("in use")
	// ErrExists: the guest's files are here already.
	ErrExists = errors.New("exists already")
	// ErrNotFound: the guest has no files here.
	ErrNotFound = errors.New("no such guest here")
	// ErrRunning: the guest runs, the request needs it stopped.
	ErrRunning = errors.New("guest is running")
	// ErrStopped: the guest does not run, the request needs it running.
	ErrStopped = errors.New("guest is not running")
	// ErrLaunch: QEMU did not come up; the text has QEMU's own message.
	ErrLaunch = errors.New("QEMU did not start")
	// ErrNoRoom: the host lacks memory or space.
	ErrNoRoom = errors.New("not enough room")
)

// SpecError lists everything that is wrong with a spec. It is an ErrBadSpec.
type SpecError struct {
	Name     string // the guest's, if known
	Problems []string
}

// Error puts one problem behind the name, and several on a line each.
func (e *SpecError) Error() string {
	head := "bad spec"
	if e.Name != "" {
		head = fmt.Sprintf("bad spec of %q", e.Name)
	}
	if len(e.Problems) == 1 {
		return head + ": " + e.Problems[0]
	}
	return head + ":\n  " + strings.Join(e.Problems, "\n  ")
}

// Is makes every SpecError an ErrBadSpec.
func (e *SpecError) Is(target error) bool { return target == ErrBadSpec }
