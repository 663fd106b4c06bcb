package systemd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// fake is a systemd that says what a test wants and notes what it is asked.
type fake struct {
	state, unit string
	err         error
	stopped     string
	open        int
}

func (f *fake) SystemStateContext(context.Context) (*dbus.Property, error) {
	return &dbus.Property{Name: "SystemState", Value: godbus.MakeVariant(f.state)}, f.err
}

func (f *fake) GetUnitNameByPID(_ context.Context, pid uint32) (string, error) {
	if int(pid) != os.Getpid() {
		return "", errors.New("another process")
	}
	return f.unit, nil
}

func (f *fake) StopUnitContext(_ context.Context, name, mode string, result chan<- string) (int, error) {
	f.stopped = name + " " + mode
	if result != nil {
		f.stopped += " waited for"
	}
	return 1, f.err
}

func (f *fake) Close() { f.open-- }

func host(f *fake) (*Host, *[]string) {
	said := &[]string{}
	return &Host{
		log: slog.New(slog.DiscardHandler), booted: true, served: true,
		dial: func(context.Context) (manager, error) {
			if f == nil {
				return nil, errors.New("no bus")
			}
			f.open++
			return f, nil
		},
		notify: func(state string) { *said = append(*said, state) },
	}, said
}

func TestStopping(t *testing.T) {
	for _, c := range []struct {
		fake *fake
		want bool
	}{
		{&fake{state: "running"}, false},
		{&fake{state: "degraded"}, false},
		{&fake{state: "starting"}, false},
		{&fake{state: "stopping"}, true},
		{&fake{state: `"stopping"`}, true},
		{&fake{state: "stopping", err: errors.New("timeout")}, false},
		{nil, false},
	} {
		h, _ := host(c.fake)
		if got := h.Stopping(t.Context()); got != c.want {
			t.Errorf("%+v: %v", c.fake, got)
		}
		if c.fake != nil && c.fake.open != 0 {
			t.Errorf("%+v: a connection stays open", c.fake)
		}
	}
	h, _ := host(&fake{state: "stopping"})
	h.booted = false
	if h.Stopping(t.Context()) {
		t.Error("a host without systemd is going down")
	}
}

func TestExtend(t *testing.T) {
	h, said := host(nil)
	h.Extend(20 * time.Second)
	if len(*said) != 1 || !strings.HasPrefix((*said)[0], "EXTEND_TIMEOUT_USEC=20000000\n") {
		t.Errorf("said %q", *said)
	}
	h.served = false
	if h.Extend(time.Second); len(*said) != 1 {
		t.Errorf("said %q where nobody listens", *said)
	}
}

func TestStopService(t *testing.T) {
	f := &fake{unit: "vmctl.service"}
	h, _ := host(f)
	if there, err := h.StopService(t.Context()); !there || err != nil || f.stopped != "vmctl.service replace" || f.open != 0 {
		t.Errorf("%v, %v: %+v", there, err, f)
	}
	f = &fake{unit: "session-3.scope"}
	h, _ = host(f)
	if there, err := h.StopService(t.Context()); there || err != nil || f.stopped != "" {
		t.Errorf("in a session: %v, %v: %+v", there, err, f)
	}
	h, _ = host(nil)
	if there, err := h.StopService(t.Context()); !there || err == nil {
		t.Errorf("without an answer: %v, %v", there, err)
	}
	h.served = false
	if there, err := h.StopService(t.Context()); there || err != nil {
		t.Errorf("by hand: %v, %v", there, err)
	}
}
