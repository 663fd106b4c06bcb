package node

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

// TestFullDiskDoesNotCostTheMemory: a resume that found the disk full is tried
// again a second later, and is still a resume; any other failure is followed by a
// boot at once, which costs the guest its memory.
func TestFullDiskDoesNotCostTheMemory(t *testing.T) {
	full := fmt.Errorf("take web over: %w", &fs.PathError{Op: "write", Path: "checkpoint.new", Err: syscall.ENOSPC})
	for _, c := range []struct {
		name   string
		err    error
		next   recovery.How
		waits  bool
		alarms []string
		told   []string
	}{
		{"full disk", full, recovery.Resume, true, []string{"web/guest-failed"}, []string{"web/guest-failedon"}}, // as long as it lasts
		{"bad state", errors.New("load the device state: QEMU says no"), recovery.Restart, false, nil, nil},
	} {
		d, g := keeper(t, "a")
		g.n.recoverer = newRecoverer(g.n)
		planner := recovery.New("a", recovery.DefaultTiming())
		now := ha.Time(time.Minute)
		facts := recovery.Guest{ID: ha.GuestID(g.id), Name: "web", Run: true, Mine: true, Epoch: 4, Covered: true, Taking: true, Resumable: true,
			Policy: recovery.Policy{Attempts: 3}}
		first := nextStart(t, planner, now, facts)
		if first == nil || first.How != recovery.Resume {
			t.Fatalf("%s: the first start is %+v", c.name, first)
		}
		g.attempt = first
		began := time.Now()
		g.failed(c.err)
		failed := time.Now()
		if waits := g.status.hold.After(began); waits != c.waits || g.status.hold.After(failed.Add(2*time.Second)) {
			t.Errorf("%s: it is held back until %v after", c.name, g.status.hold.Sub(began))
		}
		if c.waits && !strings.Contains(g.status.failure, "no space left") {
			t.Errorf("%s: people are told %q", c.name, g.status.failure)
		}
		var second *recovery.Start
		for _, event := range g.n.recoverer.queue {
			if _, fact := event.(recovery.Guest); fact {
				continue // of this test's node, which has no lease
			}
			second = nextStart(t, planner, now, event)
		}
		if second == nil || second.How != c.next {
			t.Errorf("%s: the next start is %+v, want %s", c.name, second, c.next)
		}
		d.want(t, c.name, c.alarms, c.told)
	}
}

// nextStart is the start that follows from an event and a tick later.
func nextStart(t *testing.T, p *recovery.Planner, now ha.Time, event recovery.Event) (start *recovery.Start) {
	t.Helper()
	for _, step := range []recovery.Event{event, recovery.Tick{}} {
		for _, action := range p.Step(now, step) {
			if s, ok := action.(recovery.Start); ok {
				start = &s
			}
		}
		now += ha.Time(time.Minute)
	}
	return start
}
