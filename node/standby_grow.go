package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vmctl/snapshot"
)

// grows says whether an owner asks for the replica that is here with larger disks.
func grows(here placeRecord, request openRequest) bool {
	if here.Prepared == 0 || here.Prepared != request.Epoch || here.Epoch != 0 || slices.Equal(here.Disks, request.Disks) {
		return false
	}
	return slices.EqualFunc(here.Disks, request.Disks, func(has, wants diskSize) bool {
		return has.Name == wants.Name && has.Size <= wants.Size
	})
}

// growReplica makes the disks of the replica larger. What it has, and what it could
// go back to, stays: only the owner says when it counts, and he compares
// everything first. That the disks are to be larger is stored before the first of
// them is, so whoever opens the replica after a crash makes the rest of them so.
func (g *guest) growReplica(ctx context.Context, here placeRecord, request openRequest) (*snapshot.Standby, error) {
	if here.Was != nil { // an earlier time was cut off
		if _, err := g.openStandbyLocked(ctx); err != nil {
			return nil, err
		}
	}
	g.closeStandbyLocked()
	err := g.writePlace(func(p *placeRecord) {
		p.Was, p.Disks = p.Disks, request.Disks
		if !request.Grow {
			p.BootID = bootID()
		}
	})
	if err != nil {
		return nil, err
	}
	standby, err := g.openStandbyLocked(ctx)
	if err != nil {
		return nil, err
	}
	g.n.journal.record(info, "replica-grown", g.name(), fmt.Sprintf("the replica of %s has larger disks now: %s", g.name(), growthText(here.Disks, request.Disks)))
	return standby, nil
}

// grown notes that all images have the size that they are to have.
func (g *guest) grown() {
	g.mu.Lock()
	open := g.here.Was != nil
	g.mu.Unlock()
	if !open {
		return
	}
	if err := g.writePlace(func(p *placeRecord) { p.Was = nil }); err != nil {
		g.log.Warn("that the replica's disks are larger now is not stored; the next start looks again", "error", err)
	}
}

// growthText lists what differs.
func growthText(was, now []diskSize) string {
	var words []string
	for i, d := range now {
		if was[i].Size != d.Size {
			words = append(words, fmt.Sprintf("%s from %d to %d bytes", d.Name, was[i].Size, d.Size))
		}
	}
	return strings.Join(words, ", ")
}
