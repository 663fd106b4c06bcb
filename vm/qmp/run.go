package qmp

import (
	"context"
	"errors"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// Run states of QEMU that the product acts on; there are more.
const (
	StateRunning     = "running"
	StatePaused      = "paused"
	StatePrelaunch   = "prelaunch" // started with -S, never continued
	StateInMigrate   = "inmigrate" // waits for a state, or loads it
	StatePostMigrate = "postmigrate"
	StateShutdown    = "shutdown"
	StateIOError     = "io-error"
	StateGuestPanic  = "guest-panicked"
	StateSaveVM      = "save-vm"
	StateSuspended   = "suspended"
)

// Status is QEMU's run state. Its words are kept as text: a newer QEMU may have
// new ones.
type Status struct {
	Status  string `json:"status"`
	Running bool   `json:"running"` // the CPUs run
}

// QueryStatus asks for the run state.
func QueryStatus(ctx context.Context, c Executor) (Status, error) {
	var s Status
	err := c.Execute(ctx, "query-status", nil, &s)
	return s, err
}

// Stop stops the guest's CPUs and flushes its disks; it returns when both are
// done. A guest that is stopped already is no error, and is not running after.
// With a disk that cannot be flushed it hangs until ctx ends; see Yank.
func Stop(ctx context.Context, c Executor) error { return c.Execute(ctx, "stop", nil, nil) }

// Cont lets a stopped guest run.
func Cont(ctx context.Context, c Executor) error { return c.Execute(ctx, "cont", nil, nil) }

// SystemPowerdown presses the guest's power button. What follows is the guest's.
func SystemPowerdown(ctx context.Context, c Executor) error {
	return c.Execute(ctx, "system_powerdown", nil, nil)
}

// SystemReset resets the machine.
func SystemReset(ctx context.Context, c Executor) error {
	return c.Execute(ctx, "system_reset", nil, nil)
}

// Quit ends QEMU. That the connection ends before an answer is success. It can
// hang, with a disk that cannot be flushed: bound it by ctx, then kill.
func Quit(ctx context.Context, c Executor) error {
	err := c.Execute(ctx, "quit", nil, nil)
	if errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotSent) {
		return nil
	}
	return err
}

// QueryVersion asks for QEMU's version; Client.Version knows it without asking.
func QueryVersion(ctx context.Context, c Executor) (goqemu.Version, error) {
	var v goqemu.Version
	err := c.Execute(ctx, "query-version", nil, &v)
	return v, err
}

// AnnounceSelf has QEMU send, for every network card, packets that tell the
// switches where the guest's address is now: five, over 0.8 s. It returns at once.
func AnnounceSelf(ctx context.Context, c Executor) error {
	return c.Execute(ctx, "announce-self", struct {
		Initial int `json:"initial"` // ms
		Max     int `json:"max"`     // ms
		Rounds  int `json:"rounds"`
		Step    int `json:"step"` // ms
	}{50, 550, 5, 100}, nil)
}
