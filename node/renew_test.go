package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/node/notify"
	"vmctl/vm/guard"
)

// The agent is the second holder of QEMU's process: a guard that is stopped freezes
// nothing, so the agent kills the guest within what takeovers allow for stopping it,
// and the guard, whose socket the next one needs.
func TestStoppedGuardIsCovered(t *testing.T) {
	t.Parallel()
	t.Run("renewed", func(t *testing.T) { t.Parallel(); stoppedGuard(t, true) })
	t.Run("never renewed", func(t *testing.T) { t.Parallel(); stoppedGuard(t, false) })
}

// leaseLeft is longer than it takes to stop the guard once it has its deadline: one
// that was earlier than that would have frozen the guest.
const leaseLeft = 3 * time.Second

func stoppedGuard(t *testing.T, renewed bool) {
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	var session guard.Session
	client, err := guard.Start(t.Context(), exe, guard.Launch{
		Guest: guard.Guest{Name: "web", UUID: "u"}, Argv: []string{"sleep", "600"}, ConfigPath: path("json"), LogPath: path("log"),
		Socket: path("sock"), ExitPath: path("exit"), Epoch: 3, DeadlineNS: guard.Now() + int64(leaseLeft),
	}, &session)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Wait()
	defer client.Close()
	defer func() { _ = client.KillNow() }()
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	n := &Node{log: log, journal: newJournal(nil, "a", log, func(notify.Event) {})}
	n.keeping = newKeeping(n)
	g := newGuest(n, "u", guestRecord{}, placeRecord{})
	g.place("a", 3)
	stop := g.keepLease(client, 3)
	defer stop()
	deadline := status.Deadline
	if renewed {
		deadline = guard.Now() + int64(leaseLeft)
		g.renew(ha.Renew{Epoch: 3, Deadline: ha.Time(deadline)})
		for s := status; s.Deadline != deadline; time.Sleep(time.Millisecond) {
			if s, err = client.Status(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := syscall.Kill(status.GuardPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(status.GuardPID, syscall.SIGCONT) }()
	select {
	case <-client.Dead():
	case <-time.After(10 * time.Second):
		t.Fatal("a guest whose guard is stopped runs on beyond its lease")
	}
	t.Logf("killed %v after the deadline", time.Duration(guard.Now()-deadline))
	if guard.Now() < deadline {
		t.Error("killed before the deadline")
	}
	stop() // what it does about the guard is done then
	bound, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := guard.Attach(bound, path("json")); !errors.Is(err, guard.ErrGone) {
		t.Errorf("the stopped guard is still there: %v", err)
	}
	n.journal.mu.Lock()
	defer n.journal.mu.Unlock()
	if len(n.journal.pending) != 1 || n.journal.pending[0].event.Kind != "guard-failed" {
		t.Errorf("events %+v", n.journal.pending)
	}
}
