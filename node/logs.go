package node

import (
	"context"
	"time"

	"vmctl/vm"
)

// logsEvery is how often the guests' logs are looked at: a guest decides how much it
// writes to its console, and is not to fill this host's disk with it.
const logsEvery = 5 * time.Second

// keepLogsShort bounds them until ctx ends.
func (n *Node) keepLogsShort(ctx context.Context) {
	failed := map[string]bool{} // said already
	every(ctx, logsEvery, func() {
		for _, g := range n.guests.list() {
			for _, path := range []string{g.layout.SerialLog(), g.layout.QEMULog()} {
				err := vm.KeepLogShort(path, vm.LogBound)
				if err != nil && !failed[path] {
					g.log.Warn("a log of the guest grows without a bound", "error", err)
				}
				failed[path] = err != nil
			}
		}
	})
}
