package qmp

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrClosed says that the connection is gone: QEMU ended, or either side
	// closed it.
	ErrClosed = errors.New("QMP connection closed")
	// ErrNotQMP says that what listens on the socket does not greet like QEMU.
	ErrNotQMP = errors.New("not a QMP socket")
	// ErrProtocol says that QEMU sent something that is not QMP. The connection
	// is closed then, so it comes together with ErrClosed.
	ErrProtocol = errors.New("QMP protocol violated")
	// ErrNotSent comes with the reason: QEMU has not seen the command.
	ErrNotSent = errors.New("not sent")
	// ErrNoOOB says that the monitor has no out-of-band commands.
	ErrNoOOB = errors.New("the monitor offers no out-of-band commands")
	// ErrEventsDropped says that the event waited for may have been among those
	// that did not fit the subscriber's queue.
	ErrEventsDropped = errors.New("QMP events were dropped")
)

// Error classes of QEMU.
const (
	ClassGeneric         = "GenericError"
	ClassCommandNotFound = "CommandNotFound"
	ClassDeviceNotFound  = "DeviceNotFound"
	ClassDeviceNotActive = "DeviceNotActive"
)

// Error is QEMU's answer that it did not do what it was asked.
type Error struct {
	Command     string
	Class       string // one of QEMU's classes, mostly ClassGeneric
	Description string // QEMU's own words, for people
}

func (e *Error) Error() string {
	if e.Class == ClassGeneric || e.Class == "" {
		return fmt.Sprintf("QEMU refused %s: %s", e.Command, e.Description)
	}
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.Command, e.Description, e.Class)
}

// HasClass tells whether err is an Error of that class.
func HasClass(err error, class string) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == class
}

// gaveUp is the error of a command whose context ended first.
func gaveUp(ctx context.Context, command string, sent bool) error {
	if !sent {
		return fmt.Errorf("qmp: %s: %w, its turn did not come in time: %w", command, ErrNotSent, ctx.Err())
	}
	return fmt.Errorf("qmp: %s: no reply in time, QEMU may still carry it out: %w", command, ctx.Err())
}
