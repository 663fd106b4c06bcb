package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/node/api"
	"vmctl/store"
	"vmctl/vm"
	"vmctl/vm/disk"
)

// Create implements api.Machines.
func (n *Node) Create(ctx context.Context, spec vm.Spec, force bool) (api.VM, error) {
	if err := n.refusesGuests("create", spec.Name); err != nil {
		return api.VM{}, err
	}
	spec = spec.Defaults(n.host)
	if spec.Recovery.Home == "" {
		spec.Recovery.Home = n.config.Name
	}
	if err := spec.Validate(n.host); err != nil {
		return api.VM{}, err
	}
	n.creating.Lock()
	defer n.creating.Unlock()
	if err := n.refusesGuests("create", spec.Name); err != nil { // it may have changed meanwhile
		return api.VM{}, err
	}
	if n.peerHeard() {
		// The peer may know a guest of this name that we do not know yet.
		if err := n.exchange.now(ctx); err != nil {
			n.log.Info("records not compared before a guest is made", "error", err)
		}
	}
	for _, g := range n.guests.list() {
		if g.name() == spec.Name || g.id == spec.UUID {
			return api.VM{}, api.Errorf(api.Conflict, "create %s: there is a guest of that name or UUID already, %s on node %s", spec.Name, g.name(), g.ownerName())
		}
	}
	if err := n.checkPlace("create", spec, nil); err != nil {
		return api.VM{}, err
	}
	if err := n.admit(spec); err != nil {
		return api.VM{}, err
	}
	var warnings []string
	if spec.Protection.Level != vm.ProtectNone { // others are asked about when they start
		var err error
		if warnings, err = n.admitAlone("create", spec, force); err != nil {
			return api.VM{}, err
		}
	}
	g := newGuest(n, spec.UUID, guestRecord{Spec: spec, Created: time.Now(), Epoch: 1, Version: 1}, placeRecord{})
	var used []string
	for path := range n.guests.usedDisks("") {
		used = append(used, path)
	}
	if err := vm.Create(ctx, spec, g.layout, n.host, used); err != nil {
		return api.VM{}, specError(err)
	}
	// A client that leaves now leaves a whole guest behind, not half of one.
	if err := n.register(context.WithoutCancel(ctx), g); err != nil {
		return api.VM{}, err
	}
	n.journal.record(info, "guest-created", spec.Name, fmt.Sprintf("%s made: CPUs %d, memory %v, protection %s", spec.Name, spec.CPUs, spec.Memory, spec.Protection.Level))
	if err := n.contest(ctx, g); err != nil {
		return api.VM{}, err
	}
	v := n.view(ctx, g)
	v.Warnings = warnings
	return v, nil
}

// contest finds out whether the peer made a guest of the same name in the same
// moment: both nodes give way to the lower UUID, before either has started its
// guest for the user.
func (n *Node) contest(ctx context.Context, g *guest) error {
	if !n.peerHeard() {
		n.exchange.soon()
		return nil
	}
	if err := n.exchange.now(ctx); err != nil {
		n.log.Info("records not compared after a guest was made", "error", err)
		return nil
	}
	for _, other := range n.guests.list() {
		if other.name() != g.name() || other.id >= g.id {
			continue
		}
		if err := n.Remove(context.WithoutCancel(ctx), g.id, true); err != nil {
			return err
		}
		return api.Errorf(api.Conflict, "create %s: node %s made a guest of that name in the same moment", g.name(), other.ownerName())
	}
	return nil
}

// register stores a new guest and makes this node its owner. On failure
// nothing of the guest is left.
func (n *Node) register(ctx context.Context, g *guest) error {
	err := n.db.Update(func(tx *store.Tx) error {
		for row, err := range guestTable.Prefix(tx, "") {
			if err == nil && !row.Value.Removed && row.Value.Spec.Name == g.record.Spec.Name {
				err = api.Errorf(api.Conflict, "create %s: there is a guest of that name already, %s", g.record.Spec.Name, row.Key)
			}
			if err != nil {
				return err
			}
		}
		_, err := guestTable.Create(tx, g.id, g.record)
		return err
	})
	if err != nil {
		return errors.Join(err, vm.Remove(g.layout))
	}
	g.owner, g.epoch = ha.NodeID(n.config.Name), 1
	n.guests.add(g)
	err = n.decider.request(ctx, func(id uint64) ha.Event {
		return ha.Own{ID: id, Record: ha.Record{Guest: ha.GuestID(g.id), Level: ha.Level(g.record.Spec.Protection.Level)}}
	})
	if err == nil {
		return nil
	}
	g.forget()
	<-g.cleaned
	return errors.Join(err, n.db.Update(func(tx *store.Tx) error { return deleteIfThere(guestTable, tx, g.id) }))
}

// specError gives vm's errors the codes users see.
func specError(err error) error {
	if errors.Is(err, disk.ErrTooLarge) {
		return api.Errorf(api.Usage, "%v", err).WithHint("Make the disk smaller, or have the agent's --state-dir on a file system with larger files: ext4 has them up to 16 TiB, XFS and btrfs up to 8 EiB.")
	}
	codes := []struct {
		is   error
		code api.Code
	}{
		{vm.ErrBadSpec, api.Usage}, {vm.ErrInUse, api.Conflict}, {vm.ErrExists, api.Conflict}, {vm.ErrRunning, api.Conflict},
		{vm.ErrStopped, api.Conflict}, {vm.ErrNotFound, api.NotFound}, {os.ErrNotExist, api.Usage}, {vm.ErrNoRoom, api.Conflict},
	}
	for _, c := range codes {
		if errors.Is(err, c.is) {
			return &api.Error{Code: c.code, Message: err.Error()}
		}
	}
	return err
}

// Remove implements api.Machines.
func (n *Node) Remove(ctx context.Context, name string, force bool) error {
	g, err := n.ownGuest(name)
	if err != nil {
		return err
	}
	if _, paired := n.members.peer(); paired && !n.peerHeard() && !force {
		return api.Errorf(api.Unreachable, "remove %s: the peer does not answer, and its replica would stay", name).
			WithHint("Wait for it, or give --force: the replica is removed when the peer is back.")
	}
	if g.running() {
		if !force {
			return api.Errorf(api.Conflict, "remove %s: it is running", name).WithHint("`vmctl vm stop %s` first, or give --force.", name)
		}
		if _, err := n.Act(ctx, name, api.Kill, api.Option{}); err != nil {
			return err
		}
	}
	g.op.Lock()
	defer g.op.Unlock()
	err = n.decider.request(ctx, func(id uint64) ha.Event { return ha.Forget{ID: id, Guest: ha.GuestID(g.id)} })
	if err != nil {
		return err
	}
	if err := g.write(func(r *guestRecord) { r.Removed, r.Run = true, false }); err != nil {
		return err
	}
	g.forget()
	select {
	case <-g.cleaned:
	case <-ctx.Done():
		return ctx.Err()
	}
	n.journal.record(info, "guest-removed", g.name(), g.name()+" and its disks removed")
	return nil
}

// clean removes what is here of a guest that is gone.
func (g *guest) clean(context.Context) {
	defer close(g.cleaned)
	g.endSpare("the guest was removed")
	g.closeStandby()
	g.n.guests.drop(g.id)
	g.n.recoverer.tell(recovery.Gone{ID: ha.GuestID(g.id)})
	g.n.alarms.forget(g.name())
	g.mu.Lock()
	leaves := g.leaves
	g.mu.Unlock()
	if leaves {
		g.tellLeft()
		return
	}
	if err := g.removeFiles(); err != nil {
		g.n.journal.record(warning, "guest-files", g.name(), "files of a removed guest stay: "+err.Error())
	}
	err := g.n.db.Update(func(tx *store.Tx) error {
		return errors.Join(deleteIfThere(placeTable, tx, g.id), deleteIfThere(verifyTable, tx, g.id))
	})
	if err != nil {
		g.log.Warn("the place of a removed guest stays in the store", "error", err)
	}
}

// ownGuest finds a guest that this node owns.
func (n *Node) ownGuest(name string) (*guest, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return nil, err
	}
	if !g.isOwner() {
		return nil, api.Errorf(api.Conflict, "%s belongs to node %s now", name, g.ownerName()).WithHint("Try again.")
	}
	return g, nil
}
