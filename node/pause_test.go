package node

import (
	"path/filepath"
	"testing"

	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/qmp/qmptest"
)

// What the user has said last holds, whatever the guest was at the checkpoint.
func TestStateAfterACheckpoint(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, c := range []struct {
		name string
		said *bool
		was  string
		want string
	}{
		{"nothing said", nil, "running", "running"},
		{"an agent that keeps no word", nil, "paused", "paused"},
		{"paused since", &yes, "running", "paused"},
		{"paused before", &yes, "paused", "paused"},
		{"goes on since", &no, "paused", "running"},
		{"goes on before", &no, "running", "running"},
	} {
		g := &guest{record: guestRecord{Paused: c.said}}
		if got := g.stateAfter(replica.Checkpoint{RunState: c.was}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// An agent that ended before it had QEMU pause the guest has not paused it.
func TestPauseThatWasNotCarriedOut(t *testing.T) {
	t.Parallel()
	for state, stays := range map[string]bool{"running": false, "paused": true} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			g, client, monitor := leftBehind(t)
			db := openDB(t, filepath.Join(t.TempDir(), "db"))
			t.Cleanup(func() { _ = db.Close() })
			g.n.db, g.n.exchange = db, &exchange{kick: make(chan struct{}, 1)}
			yes := true
			g.record.Paused = &yes
			monitor.Handle("query-status", func(*qmptest.Call) (any, error) {
				return map[string]any{"status": state, "running": state == string(vm.StateRunning)}, nil
			})
			adopted(t, g, client)
			if got := g.record.Paused; (got != nil) != stays {
				t.Errorf("the word stays: %v, want %v", got != nil, stays)
			}
		})
	}
}
