package node

import (
	"context"
	"time"

	"vmctl/ha"
	"vmctl/vm/guard"
)

// renewBound bounds one word with the guard, which answers in microseconds.
const renewBound = 500 * time.Millisecond

// keepLease tells the guard of a machine every new deadline, from the moment
// there is a guard: QEMU may take longer to come up than a lease lasts. It goes
// on until stop, which waits for it.
func (g *guest) keepLease(client *guard.Client, epoch uint64) (stop func()) {
	return start(context.Background(), func(ctx context.Context) {
		var told int64
		for {
			g.mu.Lock()
			deadline, arm, current, changed := g.deadline, g.arm, g.epoch, g.changed
			g.mu.Unlock()
			if current == epoch && deadline != told && deadline > guard.Now() {
				if err := g.tellGuard(ctx, client, epoch, deadline, arm); err == nil {
					told = deadline
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-client.Done():
				return
			}
		}
	})
}

func (g *guest) tellGuard(ctx context.Context, client *guard.Client, epoch uint64, deadline int64, arm uint64) error {
	ctx, cancel := context.WithTimeout(ctx, renewBound)
	defer cancel()
	if err := client.Renew(ctx, epoch, deadline); err != nil {
		if ctx.Err() == nil {
			g.log.Warn("the guard did not take a lease", "error", err)
		}
		return err
	}
	if arm != 0 {
		g.mu.Lock()
		if g.arm == arm {
			g.arm = 0
		}
		g.mu.Unlock()
		g.n.decider.tell(ha.Armed{Guest: ha.GuestID(g.id), Arm: arm})
	}
	return nil
}
