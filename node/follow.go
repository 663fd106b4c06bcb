package node

import (
	"context"
	"fmt"

	"vmctl/vm"
)

// followEvents records what happens to a running guest, and ends one that
// panicked, so that the restart policy decides.
func (g *guest) followEvents(ctx context.Context, m *machine) {
	events, cancel := m.Events()
	defer cancel()
	name := g.name()
	defer g.diskError(vm.StateStopped)
	if state, err := m.RunState(ctx); err == nil {
		g.diskError(state) // of an adopted guest
	}
	for {
		var event vm.Event
		var open bool
		select {
		case event, open = <-events:
		case <-ctx.Done():
			return
		}
		if !open {
			return
		}
		switch event.Kind {
		case vm.EventPanicked:
			g.n.journal.record(alarm, "guest-panicked", name, fmt.Sprintf("the kernel of %s panicked; its last words are in `vmctl vm logs %s`", name, name))
			if g.spec().Restart.Policy == vm.RestartNever {
				continue // it stays for a look
			}
			if err := m.guard.Kill(ctx); err != nil {
				g.log.Warn("a panicked guest was not ended", "error", err)
			}
		case vm.EventRunState:
			g.diskError(event.State)
		case vm.EventReset:
			g.n.journal.seldom(info, "guest-reset", name, name+" reboots")
		case vm.EventShutdown:
			g.void(ctx, m, "the guest shut itself down")
		case vm.EventMonitorLost:
			g.n.journal.record(alarm, "monitor-lost", name, fmt.Sprintf("%s runs, but its QEMU does not answer any more", name))
		}
	}
}

// diskError raises an alarm while the guest stands still because QEMU could not
// write to its disk, and ends it.
func (g *guest) diskError(state vm.RunState) {
	name := g.name()
	g.n.alarms.set("disk-error", name, state == vm.StateIOError,
		fmt.Sprintf("%s stands still: this host could not write to its disk; look for a full file system or failing disk at %s, then `vmctl vm unpause %s`", name, g.layout.Disks(), name))
}
