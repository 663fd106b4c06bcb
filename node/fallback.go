package node

import (
	"context"
	"time"

	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/vm"
)

// fallback is what a takeover of a replica would begin from although it lacks
// writes: only an operator orders that. The standby finds it out and tells it the
// owner.
type fallback struct {
	To    string    `msgpack:"to"` // api.FallbackCheckpoint and others; empty: the replica is whole, and followed
	Time  time.Time `msgpack:"time"`
	Bytes int64     `msgpack:"bytes"` // that keeping it takes
}

// fallbackOf looks at the replica here.
func (g *guest) fallbackOf(ctx context.Context, standby *snapshot.Standby) fallback {
	content := standby.Content()
	if g.spec().Protection.Level == vm.ProtectResume {
		if status, err := standby.Status(ctx); err == nil && status.Complete {
			return fallback{To: api.FallbackCheckpoint, Time: time.Unix(0, status.Time), Bytes: content.Bytes}
		}
	}
	switch {
	case len(g.spec().Disks) == 0, content.Whole && content.Followed:
		return fallback{}
	case content.Whole, content.Held:
		return fallback{To: api.FallbackDisks, Time: content.Time, Bytes: content.Bytes}
	}
	return fallback{To: api.FallbackNothing}
}

// lookBack keeps what the replica here could go back to; the peer shows it, too.
func (g *guest) lookBack(ctx context.Context) {
	g.mu.Lock()
	standby, was := g.standby, g.status.fallback
	g.mu.Unlock()
	var now fallback
	if standby != nil {
		now = g.fallbackOf(ctx, standby)
	}
	if now == was {
		return
	}
	g.locked(func() { g.status.fallback = now })
	if now.To != was.To || now.To == api.FallbackDisks && !now.Time.Equal(was.Time) {
		g.n.exchange.soon()
	}
}

// fallbackHere is what the replica here of another node's guest could go back to.
func (g *guest) fallbackHere() (fallback, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.fallback, !g.mine() && g.status.fallback.To != ""
}

// fallbackView is for people, on both nodes; nil: there is nothing to say.
func (g *guest) fallbackView() *api.Fallback {
	told, ok := g.fallbackHere()
	g.mu.Lock()
	mine, phase := g.mine(), g.status.phase
	g.mu.Unlock()
	if mine {
		said, _ := g.n.exchange.peer()
		told, ok = said.Fallbacks[g.id]
		ok = ok && phase != "synced" && g.spec().Protection.Level != vm.ProtectNone
	}
	if !ok {
		return nil
	}
	view := &api.Fallback{To: told.To, Bytes: told.Bytes}
	if !told.Time.IsZero() {
		age := time.Since(told.Time).Seconds()
		view.Time, view.AgeSeconds = &api.Time{Time: told.Time}, &age
	}
	return view
}
