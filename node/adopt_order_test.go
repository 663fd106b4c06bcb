package node

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/node/notify"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp/qmptest"
)

// leftBehind is a guest that an earlier agent left, with a real guard and a
// scripted monitor.
func leftBehind(t *testing.T) (*guest, *guard.Client, *qmptest.Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "o")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	var session guard.Session
	client, err := guard.Start(t.Context(), exe, guard.Launch{
		Guest: guard.Guest{Name: "web", UUID: "u"}, Argv: []string{"sleep", "600"}, QMPSocket: path("gqmp"), ConfigPath: path("json"), LogPath: path("log"),
		Socket: path("sock"), ExitPath: path("exit"), Epoch: 3, DeadlineNS: guard.Forever,
	}, &session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.KillNow()
		client.Close()
		session.Wait()
	})
	log := slog.New(slog.DiscardHandler)
	n := &Node{log: log, journal: newJournal(nil, "a", log, func(notify.Event) {})}
	n.keeping, n.guests = newKeeping(n), newGuests(n)
	spec := vm.Spec{Name: "web", Disks: []vm.Disk{{Name: "d"}}, Protection: vm.Protection{Level: vm.ProtectRestart}}
	g := newGuest(n, "u", guestRecord{Spec: spec}, placeRecord{Sizes: []diskSize{{Name: "d", Size: 1 << 20}}})
	g.layout = vm.Layout{State: dir, Runtime: dir, RAMFile: path("ram")}
	g.place("a", 3)
	monitor := qmptest.Start(t)
	monitor.Return("query-fdsets", []any{})
	monitor.Return("cont", struct{}{})
	if err := os.Symlink(monitor.Path(), g.layout.AgentQMP()); err != nil {
		t.Fatal(err)
	}
	return g, client, monitor
}

// adopted is the guest that was left behind, adopted until the test ends.
func adopted(t *testing.T, g *guest, client *guard.Client) *machine {
	t.Helper()
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := g.adoptRunning(t.Context(), client, status)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.KillNow(); m.close(); _ = m.protector.Close() })
	return m
}

// TestListensBeforeItSpeaksQMP: a QEMU that drains its disks answers nothing until
// the mirrors' socket is served again. The adopting agent serves it first, and
// continues the guest only if it was stopped for a checkpoint.
func TestListensBeforeItSpeaksQMP(t *testing.T) {
	t.Parallel()
	for name, ours := range map[string]bool{"stopped by an agent": true, "stopped by its user": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, client, monitor := leftBehind(t)
			monitor.Handle("query-status", func(*qmptest.Call) (any, error) {
				conn, err := net.DialTimeout("unix", g.mirrorSocket(), time.Second)
				if err != nil {
					t.Errorf("QEMU is asked before the mirrors are served: %v", err)
					return nil, errors.New("hangs")
				}
				return map[string]any{"status": "paused", "running": false}, conn.Close()
			})
			if ours {
				if err := client.BeginPause(t.Context(), 1, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			m := adopted(t, g, client)
			if len(monitor.Calls("cont")) != 0 {
				t.Error("continued before it is known whether the mirrors are good")
			}
			if err := m.continueIfOurs(t.Context()); err != nil {
				t.Fatal(err)
			}
			if continued := len(monitor.Calls("cont")) == 1; continued != ours {
				t.Errorf("continued: %v", continued)
			}
		})
	}
}
