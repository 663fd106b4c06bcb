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
		case vm.EventReset:
			g.n.journal.record(info, "guest-reset", name, name+" reboots")
		case vm.EventShutdown:
			g.void(ctx, m, "the guest shut itself down")
		case vm.EventMonitorLost:
			g.n.journal.record(alarm, "monitor-lost", name, fmt.Sprintf("%s runs, but its QEMU does not answer any more", name))
		}
	}
}
