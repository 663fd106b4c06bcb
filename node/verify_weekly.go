package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
)

// verifyEvery is how often each replica is verified by itself; verifyLook how
// often it is looked for one that is due.
const (
	verifyEvery = 7 * 24 * time.Hour
	verifyLook  = time.Minute
	verifyRetry = time.Hour
)

// verifying verifies the replicas of this node's guests in turn, one at a time.
func (n *Node) verifying(ctx context.Context) {
	ticker := time.NewTicker(verifyLook)
	defer ticker.Stop()
	tried := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if g := n.dueForVerify(now, tried); g != nil {
				tried[g.id] = now
				n.verifyByItself(ctx, g)
			}
		}
	}
}

func (n *Node) verifyByItself(ctx context.Context, g *guest) {
	v, err := n.verify(ctx, g.id, func(api.Verification) {}, true)
	switch {
	case err != nil && ctx.Err() == nil:
		n.log.Info("a replica was not verified, it will be tried again", "vm", g.name(), "error", err)
	case err == nil:
		n.journal.record(info, "replica-verified", g.name(), fmt.Sprintf("the replica of %s was verified: %s", g.name(), v.State))
	}
}

// dueForVerify is one of this node's guests with a complete replica that is due.
func (n *Node) dueForVerify(now time.Time, tried map[string]time.Time) *guest {
	for _, g := range n.guests.list() {
		g.mu.Lock()
		counts := g.owner == ha.NodeID(n.config.Name) && g.machine != nil && g.status.phase == "synced"
		last := g.record.Created
		g.mu.Unlock()
		if v := g.lastVerified(); v != nil {
			last = v.Time.Time
		} else {
			last = last.Add(-spread(g.id))
		}
		if counts && now.Sub(tried[g.id]) >= verifyRetry && verifyIsDue(last, now) {
			return g
		}
	}
	return nil
}

// verifyIsDue also when the last one lies in the future: the clock went back.
func verifyIsDue(last, now time.Time) bool {
	return now.Sub(last) >= verifyEvery || last.Sub(now) > 24*time.Hour
}

// spread is a part of a week that depends on the guest, so that those made
// together are not verified together.
func spread(id string) time.Duration {
	var sum uint32 = 2166136261
	for _, c := range []byte(id) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return time.Duration(float64(sum) / (1 << 32) * float64(verifyEvery))
}

// rest waits as long as the step before took.
func rest(ctx context.Context, span time.Duration) {
	timer := time.NewTimer(min(span, time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
