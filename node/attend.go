package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/vm"
)

// attend looks after a running guest until QEMU has ended or ctx does; then the
// guest runs on (the agent stops) or has been killed (this node yielded).
func (g *guest) attend(ctx context.Context, m *machine) {
	began := time.Now()
	m.clock = g.clockOf(m)
	g.locked(func() { g.machine, g.plan, g.status.failure, g.status.starting = m, nil, "", false })
	g.found()
	g.n.alarms.set(alarmStart, g.name(), false, "")
	run, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { g.keepProtected(run, m) })
	parts.Go(func() { g.followEvents(run, m) })
	parts.Go(func() { g.watchRPO(run, m) })
	parts.Go(func() { g.keepClock(run, m) })
	parts.Go(func() { g.keepTried(run) })
	parts.Go(func() { g.settleTaking(run, m) })
	select {
	case <-m.ended():
	case <-ctx.Done():
		if context.Cause(ctx) == errYielded {
			m.killNow()
			<-m.ended()
		}
	}
	cancel()
	parts.Wait()
	end, ended := m.end()
	m.close()
	g.locked(func() { g.machine, g.status.phase, g.status.ending = nil, "none", ended })
	if ended {
		g.sweep()
		g.afterEnd(ctx, end, time.Since(began))
		g.locked(func() { g.status.ending = false })
	}
}

// afterEnd decides what follows when QEMU has ended, having run so long. The
// planner hears of every end.
func (g *guest) afterEnd(ctx context.Context, end vm.Exit, ran time.Duration) {
	var told recovery.Event = recovery.Ended{ID: ha.GuestID(g.id)}
	defer func() { g.n.recoverer.tell(told) }()
	g.mu.Lock()
	record, owner := g.record, g.owner
	history, handing := g.status.restarts, g.handing
	g.mu.Unlock()
	name := record.Spec.Name
	switch {
	case owner != ha.NodeID(g.n.config.Name):
		g.n.journal.record(warning, "guest-yielded", name, fmt.Sprintf("%s was ended here: %s owns it now", name, owner))
		return
	case handing:
		return
	case !record.Run:
		g.n.journal.record(info, "guest-stopped", name, fmt.Sprintf("%s stopped: %s", name, end))
		return
	}
	if end.Reason == vm.ExitIsolated {
		reason := fmt.Sprintf("%s was stopped here when its lease ended (isolation: stop); it boots when a lease is back", name)
		g.n.journal.record(warning, "guest-isolated", name, reason)
		g.locked(func() { g.status.failure = reason })
		return
	}
	if a := g.attempt; a != nil && isFailure(end) && a.FailedBy(ran, recovery.DefaultTiming()) {
		reason := fmt.Sprintf("it ended %.1f s after its start: %s", ran.Seconds(), end)
		g.n.journal.record(alarm, "guest-failed", name, name+": "+reason)
		told = recovery.Failed{ID: a.ID, How: a.How, Reason: reason}
		return
	}
	again, after, reason := vm.Decide(record.Spec.Restart, history, time.Now(), end.Reason)
	if again {
		g.n.journal.record(warning, "guest-restart", name, fmt.Sprintf("%s ended (%s) and is started again in %s: %s", name, end, after.Round(time.Millisecond), reason))
		g.locked(func() {
			g.status.restarts = append(g.status.restarts, time.Now())
			g.status.hold = time.Now().Add(after)
		})
		return
	}
	severity := alarm
	if end.Reason == vm.ExitShutdown {
		severity = info
	}
	g.n.journal.record(severity, "guest-ended", name, fmt.Sprintf("%s ended (%s) and stays stopped: %s", name, end, reason))
	g.locked(func() { g.status.failure = reason })
	if err := g.setRun(context.WithoutCancel(ctx), false); err != nil {
		g.log.Error("the guest's end is not stored", "error", err)
	}
}

// isFailure says whether nobody wanted this end.
func isFailure(end vm.Exit) bool {
	switch end.Reason {
	case vm.ExitShutdown, vm.ExitStopped, vm.ExitRevoked:
		return false
	}
	return true
}

// setRun stores whether the user wants the guest running, here and with the
// lease core, which tells the other voters.
func (g *guest) setRun(ctx context.Context, run bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	g.mu.Lock()
	settled, changes := g.settled, g.record.Run != run
	g.mu.Unlock()
	err := g.n.decider.request(ctx, func(id uint64) ha.Event {
		return ha.SetRun{ID: id, Guest: ha.GuestID(g.id), Run: run}
	})
	if err != nil {
		return err
	}
	if err := g.write(func(r *guestRecord) { r.Run = run }); err != nil || run {
		return err
	}
	g.endAlarms(alarmStart) // it is not to start any more
	if !changes {
		return nil
	}
	// Until another voter knows, a takeover would revive a guest that its user
	// has stopped. When nobody answers the user's word stands all the same.
	known, cancel := context.WithTimeout(ctx, settleBound)
	defer cancel()
	if g.await(known, func() bool { return g.settled != settled }) != nil {
		g.log.Warn("neither peer nor witness has confirmed that the guest is to stay stopped")
	}
	return nil
}

// settleBound is how long a stop waits for another voter to know of it.
const settleBound = 2 * time.Second

// exportSocket is where QEMU serves the disks for a comparison.
func (g *guest) exportSocket() string { return filepath.Join(g.layout.Runtime, "nbd.sock") }

// mirrorSocket is where the agent takes what QEMU writes to the disks.
func (g *guest) mirrorSocket() string { return filepath.Join(g.layout.Runtime, "mirror.sock") }

// mapFile says which chunks of the disks may differ from the replica. It is of no
// use after a boot, or to another QEMU.
func (g *guest) mapFile() string { return filepath.Join(g.layout.Runtime, "dirty.map") }

// sweep removes what an ended guest left outside its own directory: what is
// QEMU's, and what a killed agent had made for it.
func (g *guest) sweep() {
	err := vm.Clean(g.n.platform(&launch{}), g.spec(), g.layout, false)
	for _, path := range []string{g.exportSocket(), g.mirrorSocket(), g.mapFile()} {
		if failed := os.Remove(path); !errors.Is(failed, os.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	if err != nil {
		g.log.Warn("the ended guest left something behind", "error", err)
	}
}
