package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/dbus"
)

// manager is the part of a connection to systemd that is used.
type manager interface {
	SystemStateContext(ctx context.Context) (*dbus.Property, error)
	GetUnitNameByPID(ctx context.Context, pid uint32) (string, error)
	StopUnitContext(ctx context.Context, name, mode string, result chan<- string) (int, error)
	Close()
}

// Host is this host's systemd, if it has one. Its methods may be called
// concurrently.
type Host struct {
	log    *slog.Logger
	dial   func(context.Context) (manager, error)
	notify func(state string)
	booted bool // systemd is the init of this host
	served bool // it runs this process as a service
}

// New looks whether systemd runs this host and this process.
func New(log *slog.Logger) *Host {
	info, err := os.Lstat("/run/systemd/system") // what sd_booted(3) looks at
	return &Host{
		log: log, booted: err == nil && info.IsDir(), served: os.Getenv("NOTIFY_SOCKET") != "",
		dial:   connect,
		notify: func(state string) { _, _ = daemon.SdNotify(false, state) },
	}
}

// connect prefers systemd's own socket: the bus may be stopped before this.
func connect(ctx context.Context) (manager, error) {
	m, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		return m, nil
	}
	return dbus.NewWithContext(ctx)
}

// Stopping says whether the host is shutting down or rebooting.
func (h *Host) Stopping(ctx context.Context) bool {
	if !h.booted {
		return false
	}
	m, err := h.dial(ctx)
	if err != nil {
		h.log.Warn("systemd does not say whether the host is shutting down; guests run on", "error", err)
		return false
	}
	defer m.Close()
	state, err := m.SystemStateContext(ctx)
	if err != nil {
		h.log.Warn("systemd does not say whether the host is shutting down; guests run on", "error", err)
		return false
	}
	// The word comes in the quotes of D-Bus' text form or without.
	word, _ := state.Value.Value().(string)
	return strings.Trim(word, `"`) == "stopping"
}

// Extend asks systemd to wait d from now for this process to end or to ask again.
func (h *Host) Extend(d time.Duration) {
	if h.served {
		h.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=handing guests over", d.Microseconds()))
	}
}

// StopService asks systemd to stop this process' service, so that it is not
// started again, and does not wait for that. It says whether there is one.
func (h *Host) StopService(ctx context.Context) (bool, error) {
	if !h.booted || !h.served {
		return false, nil
	}
	m, err := h.dial(ctx)
	if err != nil {
		return true, fmt.Errorf("stop this service: systemd does not answer: %w", err)
	}
	defer m.Close()
	name, err := m.GetUnitNameByPID(ctx, uint32(os.Getpid()))
	if err != nil {
		return true, fmt.Errorf("stop this service: find its name: %w", err)
	}
	if !strings.HasSuffix(name, ".service") {
		return false, nil // run by hand in a session of systemd's
	}
	if _, err := m.StopUnitContext(ctx, name, "replace", nil); err != nil {
		return true, fmt.Errorf("stop %s: %w", name, err)
	}
	return true, nil
}
