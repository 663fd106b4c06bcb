package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/snapshot/memory"
	"vmctl/vm"
	"vmctl/vm/disk"
	"vmctl/vm/headroom"
)

// copiesTight says, beforehand, that this host could be too small for its guests,
// what it keeps of the peer's, and the copies for checkpoints; empty: it could not.
func (n *Node) copiesTight(with vm.Spec) string {
	if with.Protection.Level != vm.ProtectResume {
		return ""
	}
	need := n.neededAlone(n.config.Name, with).Memory + with.MemoryFile()
	for _, g := range n.guests.list() {
		g.mu.Lock()
		spec, counts := g.record.Spec, g.mine() && g.wanted() && !g.gone
		g.mu.Unlock()
		if counts && spec.UUID != with.UUID && spec.Protection.Level == vm.ProtectResume {
			need += spec.MemoryFile()
		}
	}
	if has := n.memory - vm.Size(n.budget.Reserve()); need > has {
		return fmt.Sprintf("guests of %s, replicas and the copies that checkpoints are made from may take %v of its %v of memory: while it is short of it, guests are without checkpoints",
			n.config.Name, need/vm.MiB*vm.MiB, n.memory/vm.MiB*vm.MiB)
	}
	return ""
}

// findReserve reads the configuration, once the host is known.
func (n *Node) findReserve() error {
	reserve := vm.Size(headroom.DefaultReserve(int64(n.memory)))
	if text := n.config.MemoryReserve; text != "" {
		var err error
		if reserve, err = vm.ParseSize(text); err != nil || reserve < 0 || reserve > n.memory {
			return api.Errorf(api.Usage, "--memory-reserve %q: use a size such as 1G, at most this host's %v", text, n.memory/vm.MiB*vm.MiB)
		}
	}
	n.budget = headroom.NewBudget(int64(reserve))
	available, err := headroom.System{}.Available()
	n.budget.Look(time.Now(), available, nil)
	return err
}

// lookForRoom is how often the host's memory is looked at.
const lookForRoom = 250 * time.Millisecond

// watchRoom looks at the host's memory until ctx ends.
func (n *Node) watchRoom(ctx context.Context) {
	failed := false // and said so
	every(ctx, lookForRoom, func() {
		available, err := headroom.System{}.Available()
		if err != nil && !failed {
			n.log.Warn("memory is not watched", "error", err)
		}
		if failed = err != nil; failed {
			return
		}
		give, short := n.budget.Look(time.Now(), available, n.guests.copies())
		if !short {
			return
		}
		name := n.guests.nameOf(ha.GuestID(give.Guest))
		n.guests.giveUp(give.Guest)
		n.journal.record(warning, "memory-short", name, fmt.Sprintf("this host has %d MiB of memory left, and the copy of %s's memory for checkpoints takes %d MiB: it is given up for now",
			available>>20, name, give.Bytes>>20))
	})
}

// copies are those on this host: of its guests' memory, and of the peer's.
func (gs *guests) copies() (list []headroom.Copy) {
	for _, g := range gs.list() {
		list = append(list, headroom.Copy{Guest: g.id, Bytes: g.copyHere()})
	}
	return list
}

// copyHere is how many bytes a copy of the guest's memory takes on this host.
func (g *guest) copyHere() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.machine != nil && g.machine.protector != nil:
		return g.machine.protector.Held()
	case !g.mine() && g.standby != nil:
		return g.status.image
	}
	return 0
}

// giveUp has the copy of the memory of a guest of this node go. That of one of the
// peer's goes when its owner knows: his next checkpoint is refused.
func (gs *guests) giveUp(id string) {
	g := gs.get(id)
	if g == nil {
		return
	}
	g.mu.Lock()
	var protector *snapshot.Protector
	if g.machine != nil {
		protector = g.machine.protector
	}
	g.mu.Unlock()
	if protector == nil {
		return
	}
	if err := protector.GiveUp(); err != nil {
		g.log.Warn("the copy of the guest's memory is not given back", "error", err)
	}
}

// room is what this host can spare for a copy of the guest's memory.
func (g *guest) room() int64 { return g.n.budget.Room(g.id, g.copyHere() > 0, time.Now()) }

// roomForImage is room for one that is a file among the guests' memory. What the others
// there have not touched yet is theirs: a guest that finds no room for a page dies.
func (g *guest) roomForImage() int64 {
	room := g.room()
	if free, err := disk.Free(g.n.config.RAMDir); err == nil {
		room = min(room, max(0, free-g.n.guests.promised(g)))
	}
	return room
}

// promised is how much more the memory files of the guests here may take, but for one.
func (gs *guests) promised(but *guest) (more int64) {
	for _, g := range gs.list() {
		if g == but {
			continue
		}
		g.mu.Lock()
		size, taken := int64(g.record.Spec.MemoryFile()), g.status.image
		runs, replica := g.machine != nil, g.standby != nil && !g.mine() && g.record.Spec.Protection.Level == vm.ProtectResume
		g.mu.Unlock()
		if runs {
			var err error
			if taken, err = memory.Allocated(g.layout.RAM()); err != nil {
				continue // it has just ended
			}
		}
		if runs || replica {
			more += max(0, size-taken)
		}
	}
	return more
}
