package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/vm"
	"vmctl/vm/disk"
)

const (
	// alarmSpace stands while little is left where guests' disks are. It comes before
	// guests stand still for want of space, and replicas fall behind.
	alarmSpace = "disk-low"
	spaceEvery = time.Second
	// mostLow is what is always enough, however large the file system.
	mostLow = 10 << 30
)

// spaceLow says whether that is so: below a twentieth, until there is a fifth more
// than that.
func spaceLow(free, total int64, was bool) bool {
	bound := min(total/20, mostLow)
	if was {
		bound += bound / 5
	}
	return free < bound
}

// watchSpace raises and ends the alarm until ctx ends.
func (n *Node) watchSpace(ctx context.Context) {
	low := false
	every(ctx, spaceEvery, func() {
		free, total, err := disk.Space(n.config.StateDir)
		if err != nil {
			return // whoever writes there says more of it
		}
		low = spaceLow(free, total, low)
		n.alarms.set(alarmSpace, "", low, fmt.Sprintf("%v of %v are left at %s: when there is nothing left, guests that write more stand still, and replicas here fall behind",
			vm.Size(free)/vm.MiB*vm.MiB, vm.Size(total)/vm.MiB*vm.MiB, n.config.StateDir))
	})
}
