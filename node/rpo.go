package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/vm"
)

const (
	alarmRPO = "rpo-exceeded"
	// rpoIntervals is how many intervals of work a guest may stand to lose
	// before that is an alarm.
	rpoIntervals = 5
	// rpoSettle is how long it must be so, or be good again: a checkpoint that
	// was left out is not worth an alarm.
	rpoSettle = 3 * time.Second
	rpoTick   = 500 * time.Millisecond
)

// rpoWatch turns the true RPO of a guest into an alarm that does not flap.
type rpoWatch struct {
	on    bool
	since time.Time // when the RPO crossed its bound last; zero: it is on the alarm's side
}

// step takes in the RPO at a time and says whether there is an alarm.
func (w *rpoWatch) step(now time.Time, rpo, bound time.Duration) bool {
	if exceeded := rpo > bound; exceeded == w.on {
		w.since = time.Time{}
		return w.on
	}
	if w.since.IsZero() {
		w.since = now
	}
	if now.Sub(w.since) >= rpoSettle {
		w.on, w.since = !w.on, time.Time{}
	}
	return w.on
}

// watchRPO raises the alarm rpo-exceeded while the running guest's newest
// checkpoint is too old. That there is none yet is another alarm: unprotected.
func (g *guest) watchRPO(ctx context.Context, m *machine) {
	defer g.endAlarms(alarmRPO)
	var watch rpoWatch
	ticker := time.NewTicker(rpoTick)
	defer ticker.Stop()
	for ctx.Err() == nil {
		protection := g.spec().Protection
		if protection.Level == vm.ProtectResume {
			rpo, bound := g.rpo(m), rpoIntervals*protection.Interval()
			g.n.alarms.set(alarmRPO, g.name(), watch.step(time.Now(), rpo, bound), fmt.Sprintf(
				"%s would lose more than %s of work if this host died: its last checkpoint is %s old", g.name(), bound, rpo.Round(100*time.Millisecond)))
		} else {
			watch = rpoWatch{}
			g.n.alarms.set(alarmRPO, g.name(), false, "")
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// rpo is the age of the guest's newest checkpoint on the peer, 0 without one.
func (g *guest) rpo(m *machine) time.Duration {
	g.mu.Lock()
	protector := m.protector
	g.mu.Unlock()
	if protector != nil {
		if last := protector.Last(); last.Sequence != 0 {
			return time.Since(last.Time)
		}
	}
	return 0
}
