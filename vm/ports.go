package vm

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"vmctl/vm/guard"
)

// QEMUEvent is an event as QEMU sent it.
type QEMUEvent struct {
	Name string
	Data json.RawMessage
	Time time.Time
}

// Monitor is a QMP connection to one QEMU.
type Monitor interface {
	// Execute runs a command and decodes its result into reply, if not nil.
	Execute(ctx context.Context, command string, args, reply any) error
	// Events delivers events from now on. The channel is closed when the
	// connection ends or cancel is called.
	Events() (events <-chan QEMUEvent, cancel func())
	Close() error
}

// Guard is the connection to the guard of one guest.
type Guard interface {
	// Kill ends QEMU at once, Terminate gives it the bound to end by itself.
	// Both return before QEMU is gone.
	Kill(ctx context.Context) error
	Terminate(ctx context.Context, bound time.Duration) error
	// Gone is closed when QEMU is known to be gone.
	Gone() <-chan struct{}
	// Record is how QEMU ended, nil if that is not known. Valid after Gone.
	Record() *guard.ExitRecord
}

// Network makes and removes the host's end of network cards; package network
// does.
type Network interface {
	Attach(tap, bridge, mac string) error
	Remove(tap string) error
	CheckTap(tap string) error
	SetLink(tap string, up bool) error
}

// Platform is what a guest needs from outside this package.
type Platform struct {
	// Launch starts the guard and through it QEMU. It returns once QEMU has
	// been executed; QEMU may still end on a bad argument.
	Launch func(context.Context, guard.Launch) (Guard, error)
	// Dial connects to a QMP socket and fails if none listens there.
	Dial    func(ctx context.Context, socket string) (Monitor, error)
	Network Network
	Log     *slog.Logger
}
