package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/vm"
	"vmctl/vm/disk"
)

// ResizeDisk implements api.Resizer.
func (n *Node) ResizeDisk(ctx context.Context, name, diskName, size string, force bool) (api.VM, error) {
	growth, err := vm.ParseGrowth(size)
	if err != nil {
		return api.VM{}, api.Errorf(api.Usage, "resize disk %s of %s: %v", diskName, name, err)
	}
	g, err := n.ownGuest(name)
	if err != nil {
		return api.VM{}, err
	}
	g.op.Lock()
	defer g.op.Unlock()
	if err := g.await(ctx, func() bool { return !g.status.ending }); err != nil {
		return api.VM{}, err
	}
	warnings, err := n.resize(ctx, g, diskName, growth, force)
	if err != nil {
		return api.VM{}, resizeError(g.name(), diskName, err)
	}
	v := n.view(ctx, g)
	v.Warnings = warnings
	return v, nil
}

// resizeError says what was attempted.
func resizeError(name, diskName string, err error) error {
	var said *api.Error
	if errors.As(specError(err), &said) {
		return said
	}
	return api.Errorf(api.Failed, "resize disk %s of %s: %v", diskName, name, err).WithHint("See `vmctl vm show %s`: the disk never gets smaller.", name)
}

func (n *Node) resize(ctx context.Context, g *guest, diskName string, growth vm.Growth, force bool) (warnings []string, err error) {
	i, err := diskNamed(g.spec(), diskName)
	if err != nil {
		return nil, err
	}
	m := g.current()
	if err := g.resizable(m); err != nil {
		return nil, err
	}
	sizes, err := g.sizesNow(ctx)
	if err != nil {
		return nil, err
	}
	was := sizes[i].Size
	want, err := growth.Of(was)
	switch {
	case err != nil:
		return nil, api.Errorf(api.Usage, "resize disk %s of %s: %v", diskName, g.name(), err)
	case want < was:
		return nil, api.Errorf(api.Conflict, "resize disk %s of %s: it has %v, and %v is less: a disk only grows", diskName, g.name(), vm.Size(was), vm.Size(want)).
			WithHint("Nothing was changed.")
	case want == was:
		return nil, g.keepSize(i, want)
	}
	if warnings, err = n.admitGrowth(ctx, g, i, want-was, force); err != nil {
		return nil, err
	}
	if err := vm.MayGrow(g.layout.Disk(g.spec().Disks[i], g.onReplica()), want); err != nil {
		return nil, fmt.Errorf("resize disk %s of %s: %w", diskName, g.name(), err)
	}
	if m != nil {
		err = g.growRunning(ctx, m, i, want)
	} else {
		err = n.growStopped(ctx, g, i, sizes, want)
	}
	if err != nil {
		return nil, err
	}
	n.journal.record(info, "disk-resized", g.name(), fmt.Sprintf("disk %s of %s has %v now, it had %v", diskName, g.name(), vm.Size(want), vm.Size(was)))
	return warnings, nil
}

// resizable says why the guest's disks cannot grow now.
func (g *guest) resizable(m *machine) error {
	_, leased := g.leased()
	switch {
	case m != nil && !leased:
		return api.Errorf(api.Unsafe, "resize a disk of %s: neither the peer nor the witness confirms that this node may run it", g.name()).
			WithHint("See `vmctl ha why %s`.", g.name())
	case m == nil && g.isWanted():
		return api.Errorf(api.Conflict, "resize a disk of %s: it is to run, and does not yet", g.name()).
			WithHint("Try again when it runs, or `vmctl vm stop %s` first.", g.name())
	}
	return nil
}

// growStopped makes a disk of a guest that does not run larger, here, in the spec,
// and on the peer. A peer that is away does it when the guest is protected next, or
// taken over: its copy is the same bytes until then, and the new part is empty.
func (n *Node) growStopped(ctx context.Context, g *guest, i int, sizes []diskSize, size int64) error {
	spec := g.spec()
	if err := vm.GrowStopped(ctx, n.host, spec.Disks[i], g.layout.Disk(spec.Disks[i], g.onReplica()), size); err != nil {
		return err
	}
	if err := g.keepSize(i, size); err != nil {
		return err
	}
	if spec.Protection.Level == vm.ProtectNone || !n.peerHeard() {
		return nil
	}
	sizes[i].Size = size
	err := n.exchange.now(ctx)
	if err == nil {
		err = g.growPeers(ctx, sizes)
	}
	if err != nil {
		n.log.Info("the peer's copy of a stopped guest's disk grows later", "vm", spec.Name, "reason", err)
	}
	return nil
}

// growPeers has the peer make the disks of its replica larger.
func (g *guest) growPeers(ctx context.Context, sizes []diskSize) error {
	if said, _ := g.n.exchange.peer(); !said.Grows {
		return errors.New("the peer does not know how")
	}
	conn, err := g.n.members.dial(ctx, purposeDisks, g.id, wire.Options{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	g.mu.Lock()
	request := openRequest{Epoch: g.epoch, Disks: sizes, Grow: true}
	g.mu.Unlock()
	return peer.Ask(conn, request, &openAnswer{})
}

// nodeRoom is what a node has free for guests' disks.
type nodeRoom struct {
	node string
	free int64 // bytes
}

// admitGrowth refuses what one of the hosts has no room for. An image takes its
// space as it is written, so force is the user's word that it will not be, or that
// there will be room.
func (n *Node) admitGrowth(ctx context.Context, g *guest, i int, more int64, force bool) (warnings []string, err error) {
	spec := g.spec()
	free, err := disk.Free(g.layout.Disk(spec.Disks[i], g.onReplica()).Path)
	if err != nil {
		return nil, err
	}
	room := []nodeRoom{{n.config.Name, free}}
	if other, paired := n.members.peer(); paired && spec.Protection.Level != vm.ProtectNone {
		if n.peerHeard() {
			if err := n.exchange.now(ctx); err != nil {
				n.log.Info("records not compared before a disk grows", "error", err)
			}
		}
		said, heard := n.exchange.peer()
		if heard != 0 && !said.Grows {
			return nil, api.Errorf(api.Conflict, "resize disk %s of %s: node %s runs an earlier version, which cannot make its replica larger", spec.Disks[i].Name, spec.Name, other.Name).
				WithHint("Upgrade vmctl there first.")
		}
		if heard != 0 {
			room = append(room, nodeRoom{other.Name, said.Room})
		}
	}
	for _, r := range room {
		if more <= r.free {
			continue
		}
		text := fmt.Sprintf("resize disk %s of %s: it may take %v more, and %s has %v free", spec.Disks[i].Name, spec.Name, vm.Size(more), r.node, vm.Size(r.free)/vm.MiB*vm.MiB)
		if !force {
			return nil, api.Errorf(api.Unsafe, "%s", text).
				WithHint("Make room, or give --force: then the guest stands still, or is not protected, once it has written that much.")
		}
		n.journal.record(warning, "overcommitted", spec.Name, text+"; it was forced")
		warnings = append(warnings, text)
	}
	return warnings, nil
}
