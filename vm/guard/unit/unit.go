package unit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"vmctl/vm/guard"
)

const (
	startBound = 30 * time.Second // from the start of the guard to that of QEMU
	stopMargin = 15 * time.Second // what the guard takes on top of QEMU's stop timeout
	// An ended unit of the same guest may be remembered for a moment.
	unloadBound = 5 * time.Second
	unloadPoll  = 50 * time.Millisecond
)

// manager is the part of a systemd connection that is used.
type manager interface {
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []dbus.Property, result chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, result chan<- string) (int, error)
	Close()
}

// Launcher implements guard.Launcher. Its zero value is not usable: see Detect.
type Launcher struct {
	dial func(context.Context) (manager, error)
}

func connect(ctx context.Context) (manager, error) { return dbus.NewWithContext(ctx) }

// Detect returns a Launcher if systemd runs this host and answers on D-Bus, and
// otherwise an error that says why not: use guard.Session then.
func Detect(ctx context.Context) (*Launcher, error) {
	// What sd_booted(3) looks at.
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() {
		return nil, errors.New("systemd is not this host's init")
	}
	m, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("systemd does not answer on D-Bus: %w", err)
	}
	m.Close()
	return &Launcher{dial: connect}, nil
}

// Name is the unit of a guest: vmctl-guest-<first 8 of its uuid>.service.
func Name(uuid string) string {
	return "vmctl-guest-" + uuid[:min(8, len(uuid))] + ".service"
}

// Launch implements guard.Launcher: it returns when QEMU was started. The channel
// is nil, since systemd reports a failed start by itself.
func (l *Launcher) Launch(ctx context.Context, exe, config string, launch guard.Launch) (<-chan struct{}, error) {
	name := Name(launch.Guest.UUID)
	m, err := l.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	defer m.Close()
	result := make(chan string, 1)
	if err := submit(ctx, m, name, properties(exe, config, &launch), result); err != nil {
		return nil, fmt.Errorf("start unit %s: %w", name, err)
	}
	select {
	case word := <-result:
		if word != "done" {
			return nil, fmt.Errorf("start unit %s: systemd says %q; see journalctl -u %s and %s", name, word, name, launch.LogPath)
		}
		return nil, nil
	case <-ctx.Done():
		// Nobody would renew the lease of a guest that comes up later.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), unloadBound)
		defer cancel()
		_, stopErr := m.StopUnitContext(stop, name, "replace", nil)
		return nil, fmt.Errorf("start unit %s: %w", name, errors.Join(ctx.Err(), stopErr))
	}
}

// submit hands the unit to systemd, again if an ended one of that name is still known.
func submit(ctx context.Context, m manager, name string, p []dbus.Property, result chan<- string) error {
	for end := time.Now().Add(unloadBound); ; {
		_, err := m.StartTransientUnitContext(ctx, name, "fail", p, result)
		var answer godbus.Error
		exists := errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.UnitExists"
		if !exists || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(unloadPoll):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func properties(exe, config string, l *guard.Launch) []dbus.Property {
	set := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	return []dbus.Property{
		dbus.PropDescription("vmctl guest " + l.Guest.Name),
		dbus.PropExecStart([]string{exe, "guard", config}, false),
		dbus.PropType("notify"),
		// What starts before is stopped after: at shutdown of the host the agent has
		// its turn before guests are ended.
		dbus.PropBefore("vmctl.service"),
		set("NotifyAccess", "main"),
		set("KillMode", "mixed"), // SIGTERM to the guard alone
		set("Delegate", false),
		set("TimeoutStartUSec", micros(startBound)),
		set("TimeoutStopUSec", micros(l.StopBound()+stopMargin)),
		// A QEMU killed for lack of memory is the guard's to report.
		set("OOMPolicy", "continue"),
		set("TasksMax", uint64(math.MaxUint64)),
		set("LimitMEMLOCK", uint64(math.MaxUint64)),
		set("StandardOutputFileToAppend", l.LogPath),
		set("StandardErrorFileToAppend", l.LogPath),
		// Forget the unit when it has ended, also after a failure.
		set("CollectMode", "inactive-or-failed"),
	}
}

func micros(d time.Duration) uint64 { return uint64(d.Microseconds()) }
