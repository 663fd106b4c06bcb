package node

import (
	"context"
	"time"

	"vmctl/snapshot"
)

// stopMirror takes the mirrors down for a guest that runs on without them.
func (g *guest) stopMirror(ctx context.Context, m *machine) error {
	g.mu.Lock()
	protector := m.protector
	g.mu.Unlock()
	if protector == nil {
		return nil
	}
	err := g.detach(ctx)
	if err == nil {
		err = protector.StopMirror(ctx)
	}
	if err != nil && ctx.Err() == nil {
		g.n.journal.record(alarm, "mirror-stays", g.name(), "the disks' mirrors could not be taken down: "+err.Error())
	}
	return err
}

// startMirror joins QEMU's disks to the replicator, which listens already. For
// a moment no mirror carries the guest's writes: the replica is outdated first.
func (g *guest) startMirror(ctx context.Context, m *machine, p *snapshot.Protector) error {
	if m.adopted {
		if err := m.continueIfOurs(ctx); err != nil {
			return err
		}
	}
	if err := g.detach(ctx); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return p.StartMirror(bound)
}

// keepMirror goes on with the mirrors that an earlier agent made, if everything
// that was written since then is known. The replica is outdated: what comes before
// a link is recorded, not waited for.
func (g *guest) keepMirror(ctx context.Context, m *machine, p *snapshot.Protector) bool {
	if !m.adopted {
		return false
	}
	err := m.continueIfOurs(ctx)
	if err == nil {
		err = g.detach(ctx)
	}
	if err == nil {
		bound, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err = p.KeepMirror(bound)
	}
	if err != nil {
		g.log.Info("the disks' mirrors are made anew, and everything is compared", "reason", err)
	}
	return err == nil
}
