package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/store"
	"vmctl/vm"
)

// Leave implements api.Clusters. The other node is not told: it may be gone for
// good, and that is when a node has to be able to leave. What this node knows of
// the other's guests is forgotten, for the next cluster has nothing to do with them.
func (n *Node) Leave(ctx context.Context) error {
	n.creating.Lock()
	defer n.creating.Unlock()
	record, id := n.members.current()
	if id == nil {
		return api.Errorf(api.Conflict, "leave the cluster: this node is in none").WithHint("There is nothing to do.")
	}
	theirs, err := n.letGo(ctx)
	if err != nil {
		return err
	}
	if other, ok := record.peerOf(n.config.Name); ok {
		if err := n.neighbour.forget(other.Name); err != nil {
			return err
		}
	}
	n.journal.record(warning, "cluster-left", "", "left cluster "+record.Identity.ClusterName)
	for _, g := range theirs {
		g.leave()
		select {
		case <-g.cleaned:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// letGo forgets the cluster and the other's guests, which it returns. Nothing is
// learned of them meanwhile or from then on.
func (n *Node) letGo(ctx context.Context) (theirs []*guest, err error) {
	n.exchange.learning.Lock()
	defer n.exchange.learning.Unlock()
	for _, g := range n.guests.list() {
		if err := n.mayLeave(g); err != nil {
			return nil, err
		}
		if !g.isOwner() {
			theirs = append(theirs, g)
		}
	}
	return theirs, n.goAlone(ctx, theirs)
}

// goAlone makes this node's lease core that of a node alone. A core that knows
// guests of the other node does not let go of that, so it is made anew without them,
// as if the agent had been started again: it waits a window before it grants
// anything, and what is needed of its promises is about guests that need no lease.
func (n *Node) goAlone(ctx context.Context, theirs []*guest) error {
	var failed error
	err := n.decider.inspect(ctx, func(c *ha.Core) {
		alone := ha.Cluster{
			Gen: c.Status().Cluster.Gen + 1, By: ha.NodeID(n.config.Name),
			Nodes: [2]ha.NodeID{ha.NodeID(n.config.Name)}, Mode: ha.ModeNone,
		}
		if failed = n.self.change(func(r *nodeRecord) { r.Boot++ }); failed != nil {
			return
		}
		if failed = n.members.leave(alone, theirs); failed == nil {
			failed = n.coreAnew()
		}
	})
	return errors.Join(err, failed)
}

// mayLeave refuses to leave while a guest is covered by the pair.
func (n *Node) mayLeave(g *guest) error {
	name, owner := g.name(), g.ownerName()
	switch {
	case g.spec().Protection.Level == vm.ProtectNone:
		return nil
	case g.isOwner():
		return api.Errorf(api.Conflict, "leave the cluster: %s is protected by the peer", name).
			WithHint("`vmctl vm set %s --protection none` first; it runs on.", name)
	}
	return api.Errorf(api.Conflict, "leave the cluster: this node holds the replica of %s, which node %s owns", name, owner).
		WithHint("`vmctl vm set %s --protection none` first. If %s is lost for good: `vmctl ha promote %s --confirm-peer-off` makes the guest this node's.", name, owner, name)
}

// leave forgets a guest of a cluster that this node has left. Its files stay.
func (g *guest) leave() { g.locked(func() { g.gone, g.leaves = true, true }) }

// tellLeft says where the files of a guest are that is not known here any more.
func (g *guest) tellLeft() {
	if _, err := os.Stat(g.layout.State); errors.Is(err, os.ErrNotExist) {
		return
	}
	g.n.journal.record(warning, "guest-left", g.name(), fmt.Sprintf("%s is %s's and is not known here any more; what was here of it stays in %s until it is deleted by hand", g.name(), g.ownerName(), g.layout.State))
}

// leave forgets the cluster and the guests of its other node, durably and at once.
func (m *membership) leave(alone ha.Cluster, theirs []*guest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.db.Update(func(tx *store.Tx) error {
		_, err := sharedTable.Put(tx, only, alone)
		err = errors.Join(err, deleteIfThere(clusterTable, tx, only))
		for _, g := range theirs {
			err = errors.Join(err, deleteIfThere(guestTable, tx, g.id), deleteIfThere(leaseTable, tx, g.id), deleteIfThere(verifyTable, tx, g.id))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("forget the cluster: %w", err)
	}
	m.record, m.identity = clusterRecord{}, nil
	return nil
}

// placeOf reads what is here of a guest that this node may have known before.
func (gs *guests) placeOf(id string) placeRecord {
	var row store.Row[placeRecord]
	err := gs.n.db.View(func(tx *store.Tx) (err error) {
		row, err = placeTable.Get(tx, id)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		gs.n.log.Error("the guest's place cannot be read", "guest", id, "error", err)
	}
	return row.Value
}
