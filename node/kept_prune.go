package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vmctl/ha"
)

// removeKept removes kept disks; why is for the event, which comes first. A
// removal that the agent's end interrupts is gone on with by sweepKept.
func (g *guest) removeKept(k keptDisks, why string) error {
	g.n.journal.record(warning, "kept-removed", g.name(), fmt.Sprintf("the disks of %s as this node last wrote them at epoch %d, kept in %s since %s, are removed, %d MiB: %s",
		g.name(), k.Epoch, k.Path, k.Since.Format(time.DateTime), k.Bytes>>20, why))
	g.n.journal.flush()
	gone := k.Path + goneSuffix
	if err := os.Rename(k.Path, gone); err != nil {
		return fmt.Errorf("remove kept disks: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove kept disks: %w", err)
	}
	return nil
}

// pruneKept removes what the policy allows, but only while the guest's replica
// is whole: until then the kept disks may be all there is.
func (g *guest) pruneKept(ctx context.Context, policy keptPolicy) {
	list, err := g.kept()
	if err != nil {
		g.log.Warn("kept disks are not looked at", "error", err)
		return
	}
	gone := policy.removable(list, time.Now())
	if len(gone) == 0 || !g.whole(ctx) {
		return
	}
	why := fmt.Sprintf("the replica is complete, the newest %d are kept, and none for less than %v", policy.newest, policy.least)
	for _, k := range gone {
		if err := g.removeKept(k, why); err != nil {
			g.n.journal.record(warning, "kept-stays", g.name(), err.Error())
		}
	}
	g.n.exchange.soon()
}

// whole says whether the guest runs on a node that has a replica in sync.
func (g *guest) whole(ctx context.Context) bool {
	g.mu.Lock()
	synced, own, level := g.status.phase == "synced", g.owner == ha.NodeID(g.n.config.Name), g.record.Spec.Protection.Level
	g.mu.Unlock()
	if own || level == string(ha.LevelNone) {
		return own && synced
	}
	whole := false
	err := g.n.decider.inspect(ctx, func(c *ha.Core) {
		status := c.Status()
		for _, k := range status.Guests {
			if string(k.Guest) == g.id {
				whole = k.Ready && !k.Outdated && recently(status, status.PeerHeard)
			}
		}
	})
	return err == nil && whole
}

// pruneEvery is how often kept disks are looked at.
const pruneEvery = time.Minute

// keepPruning prunes now and then, until ctx ends.
func (n *Node) keepPruning(ctx context.Context) {
	for _, g := range n.guests.list() {
		g.sweepKept()
	}
	every(ctx, pruneEvery, func() {
		for _, g := range n.guests.list() {
			g.pruneKept(ctx, n.kept)
		}
	})
}

// sweepKept goes on with removals that were begun.
func (g *guest) sweepKept() {
	left, err := filepath.Glob(filepath.Join(g.layout.State, keptPrefix+"*"+goneSuffix))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		g.log.Warn("kept disks that were removed are still there", "error", err)
	}
}
