package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/vm/guard"
)

// renewBound bounds one word with the guard, which answers in microseconds.
const renewBound = 500 * time.Millisecond

// guardGrace is how long after a deadline the agent looks whether the guard has
// frozen the guest; with guardAnswer it stays within the time that takeovers
// allow for stopping.
const (
	guardGrace  = 50 * time.Millisecond
	guardAnswer = 100 * time.Millisecond
)

// mindGuard is the second holder of the guest's process: if the lease has ended
// and the guard, stopped or stuck, has not frozen the guest, it is killed; then the
// guard, which would stand in the way of the guest's return.
func (g *guest) mindGuard(ctx context.Context, client *guard.Client) {
	bound, cancel := context.WithTimeout(ctx, guardAnswer)
	defer cancel()
	status, err := client.Status(bound)
	if ctx.Err() != nil || err == nil && (status.Frozen || status.Deadline > guard.Now()) || errors.Is(err, guard.ErrGone) {
		return
	}
	killed := client.KillNow()
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), answerBound)
	defer cancelEnd()
	if failed := guard.EndStuck(end, client.Launch().ConfigPath); failed != nil && !errors.Is(failed, guard.ErrGone) {
		g.log.Warn("a guard that does not answer could not be ended", "error", failed)
	}
	g.n.journal.record(alarm, "guard-failed", g.name(), fmt.Sprintf("the lease of %s has ended and its guard did not freeze it: the guest was killed (%v, %v)", g.name(), err, killed))
}

// keepLease tells the guard of a machine every new deadline, from the moment
// there is a guard: QEMU may take longer to come up than a lease lasts. It goes
// on until stop, which waits for it.
func (g *guest) keepLease(client *guard.Client, epoch uint64) (stop func()) {
	return start(context.Background(), func(ctx context.Context) {
		defer g.n.keeping.cover(client.Launch())()
		var told int64
		minded := client.Launch().DeadlineNS // after it the guest must be frozen; 0: known to be
		isolation := client.Launch().Isolation
		expiry := time.NewTimer(0)
		defer expiry.Stop()
		for {
			g.mu.Lock()
			deadline, arm, current, changed := g.deadline, g.arm, g.epoch, g.changed
			wanted := guard.Isolation(g.record.Spec.Isolation)
			g.mu.Unlock()
			if wanted != isolation {
				isolation = wanted
				g.tellIsolation(ctx, client, wanted)
			}
			if current == epoch && deadline != told && deadline > guard.Now() {
				if err := g.tellGuard(ctx, client, epoch, deadline, arm, minded); err == nil {
					told, minded = deadline, deadline
				}
			}
			if minded != 0 && minded != guard.Forever {
				expiry.Reset(time.Duration(max(minded-guard.Now(), 0)) + guardGrace)
			}
			select {
			case <-changed:
			case <-expiry.C:
				if minded != 0 {
					g.mindGuard(ctx, client)
					told, minded = 0, 0
				}
			case <-ctx.Done():
				return
			case <-client.Done():
				return
			}
		}
	})
}

// tellIsolation hands a changed spec on to a guard that runs. One that an older
// vmctl started keeps what it has.
func (g *guest) tellIsolation(ctx context.Context, client *guard.Client, wanted guard.Isolation) {
	ctx, cancel := context.WithTimeout(ctx, renewBound)
	defer cancel()
	if err := client.SetIsolation(ctx, wanted); err != nil && ctx.Err() == nil {
		g.log.Warn("the guard did not take the guest's isolation; it counts from the next start", "isolation", wanted, "error", err)
	}
}

// tellGuard waits for a guard that does not answer no longer than until it has to be
// looked at, after the deadline minded.
func (g *guest) tellGuard(ctx context.Context, client *guard.Client, epoch uint64, deadline int64, arm uint64, minded int64) error {
	bound := renewBound
	if left := minded - guard.Now(); left > 0 {
		bound = min(bound, time.Duration(min(left, int64(renewBound)))+guardGrace)
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
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
