package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node"
	"vmctl/node/api"
	"vmctl/vm/guard/watchdog"
)

// fakeWatchdog is a file that tells what was done to it: O for opened, V for disarmed.
type fakeWatchdog struct{ path string }

func (f fakeWatchdog) write(s string) error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, s)
	return errors.Join(err, file.Close())
}

func (f fakeWatchdog) Timeout() time.Duration { return time.Second }
func (f fakeWatchdog) CanDisarm() bool        { return true }
func (f fakeWatchdog) Feed() error            { return nil }
func (f fakeWatchdog) Disarm() error          { return f.write("V") }

// keepFake is this program as the keeper of a fake watchdog.
func keepFake(device, socket string) {
	err := watchdog.Main(context.Background(), watchdog.Config{
		Device: device, Socket: socket, Stop: node.WatchdogStop(), Log: slog.New(slog.DiscardHandler),
		Open: func(path string) (watchdog.Device, error) { return fakeWatchdog{path}, fakeWatchdog{path}.write("O") },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// keeper asks the keeper of an agent how it is.
func (a *agent) keeper(t *testing.T) (watchdog.State, error) {
	t.Helper()
	client, err := watchdog.Dial(t.Context(), filepath.Join(a.config.RuntimeDir, "watchdog.sock"))
	if err != nil {
		return watchdog.State{}, err
	}
	defer client.Close()
	return client.State(t.Context())
}

func (a *agent) looksAfter(t *testing.T, guests int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d guests looked after", guests), func() bool {
		s, err := a.keeper(t)
		return err == nil && s.Guests == guests && s.Failure == ""
	})
}

// The keeper of the watchdog outlives the agent with the guests, is replaced when it
// is killed, and ends when nobody needs it. A guest without a lease never arms the
// device.
func TestWatchdogKeeper(t *testing.T) {
	t.Parallel()
	config := dirs(t, "a")
	config.Watchdog = filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(config.Watchdog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := run(t, config)
	if _, err := a.Create(t.Context(), []byte("{name: web, memory: 16M}")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Act(t.Context(), "web", api.Start, 0); err != nil {
		t.Fatal(err)
	}
	a.looksAfter(t, 1)

	a.stop() // the guest runs on, and so does the keeper
	if s, err := a.keeper(t); err != nil || s.Guests != 1 {
		t.Errorf("without the agent: %+v, %v", s, err)
	}
	a = run(t, config)
	a.looksAfter(t, 1)

	if err := syscall.Kill(keeperPID(t, config), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.looksAfter(t, 1)
	if _, err := a.Act(t.Context(), "web", api.Kill, 0); err != nil {
		t.Fatal(err)
	}
	a.looksAfter(t, 0)
	a.stop()
	eventually(t, "the keeper to end", func() bool { _, err := a.keeper(t); return err != nil })
	if did, err := os.ReadFile(config.Watchdog); err != nil || len(did) != 0 {
		t.Errorf("the device was opened for a guest without a lease: %s, %v", did, err)
	}
}

// keeperPID finds the keeper of an agent among all processes.
func keeperPID(t *testing.T, config node.Config) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		data, _ := os.ReadFile(line)
		words := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
		if len(words) == 4 && words[1] == "watchdog" && words[2] == config.Watchdog {
			var pid int
			if _, err := fmt.Sscanf(line, "/proc/%d/cmdline", &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatal("there is no keeper")
	return 0
}

// A device that cannot be opened is an alarm, not a reason to run no guests.
func TestWatchdogMissing(t *testing.T) {
	t.Parallel()
	config := dirs(t, "a")
	config.Watchdog = "watchdog"
	want(t, "a relative path", refusedStart(t, config), api.Usage, "--watchdog")

	config = dirs(t, "b")
	config.Watchdog = "/nonexistent/watchdog"
	a := run(t, config)
	eventually(t, "an alarm", func() bool {
		status, err := a.Status(t.Context())
		return err == nil && len(status.Node.Alarms) == 1 && status.Node.Alarms[0].Kind == "watchdog" && strings.Contains(status.Node.Alarms[0].Text, config.Watchdog)
	})
}
