package node

import (
	"fmt"
	"slices"

	"vmctl/ha/recovery"
	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/disk"
)

// This file says what a node would have to hold if it were the only one left,
// and refuses what the pair could not carry then.

// describeSelf is what this node says of itself to the peer.
func (n *Node) describeSelf() nodeInfo {
	info := nodeInfo{CPUs: n.host.CPUs, Memory: int64(n.host.Memory), Maintenance: n.self.maintenance() || n.down(), Running: []string{}, Standbys: map[string]sparing{}, Fallbacks: map[string]fallback{}}
	info.Alarm, _ = n.alarms.standing()
	info.Grows, info.Files = true, int64(n.files())
	if free, err := disk.Free(n.config.StateDir); err == nil {
		info.Room = free
	}
	for _, g := range n.guests.list() {
		if g.running() {
			info.Running = append(info.Running, g.id)
		}
		if s, ok := g.standbyHere(); ok {
			info.Standbys[g.id] = s
		}
		if f, ok := g.fallbackHere(); ok {
			info.Fallbacks[g.id] = f
		}
	}
	return info
}

// capacityOf is what a node of the cluster has for guests; false if it has not
// said so.
func (n *Node) capacityOf(node string) (vm.Use, bool) {
	if node == n.config.Name {
		return vm.Use{Memory: n.host.Memory, Files: n.files(), CPUs: n.host.CPUs}, n.host.Memory > 0
	}
	said, _ := n.exchange.peer()
	return vm.Use{Memory: vm.Size(said.Memory), Files: vm.Size(said.Files), CPUs: said.CPUs}, said.Memory > 0
}

// files is how large the tmpfs of guests' memory is; 0: it is not known.
func (n *Node) files() vm.Size {
	size, err := disk.Total(n.config.RAMDir)
	if err != nil {
		return 0
	}
	return vm.Size(size)
}

// lacks says what a node would not have enough of; empty: it has. What it has
// is known as far as it is not 0.
func lacks(need, has vm.Use) string {
	switch {
	case has.Memory > 0 && need.Memory > has.Memory:
		return fmt.Sprintf("%v of guests and has %v of memory", need.Memory/vm.MiB*vm.MiB, has.Memory/vm.MiB*vm.MiB)
	case has.Files > 0 && need.Files > has.Files:
		return fmt.Sprintf("%v of guests' memory and has a tmpfs of %v for it (mount it larger, or give --ram-dir another)", need.Files/vm.MiB*vm.MiB, has.Files/vm.MiB*vm.MiB)
	}
	return ""
}

// neededAlone is what a node would have to hold without the other: its own
// guests that are to run, and the other's that it protects. with, if it has a
// name, stands for the guest of that UUID, or is one more of this node.
func (n *Node) neededAlone(node string, with vm.Spec) (need vm.Use) {
	add := func(spec vm.Spec, owner string) {
		if owner == node || spec.Protection.Level != vm.ProtectNone {
			use := spec.ResourceUse()
			need.Memory += use.Memory
			need.Files += use.Files
			need.CPUs += use.CPUs
		}
	}
	for _, g := range n.guests.list() {
		g.mu.Lock()
		spec, owner, wanted := g.record.Spec, string(g.owner), g.wanted() && !g.gone
		g.mu.Unlock()
		if wanted && spec.UUID != with.UUID {
			add(spec, owner)
		}
	}
	if with.Name != "" {
		add(with, n.config.Name)
	}
	return need
}

// fit says whether a node could carry everything alone; nil if its capacity is
// not known.
func (n *Node) fit(node string) (need vm.Use, fits *bool) {
	need = n.neededAlone(node, vm.Spec{})
	if has, known := n.capacityOf(node); known {
		ok := lacks(need, has) == ""
		fits = &ok
	}
	return need, fits
}

// admit refuses a guest that this host could not hold beside the others.
func (n *Node) admit(spec vm.Spec) error {
	need, used := spec.ResourceUse(), n.guests.used()
	has, _ := n.capacityOf(n.config.Name)
	if has.Memory > 0 && need.Memory+used.Memory > has.Memory {
		return api.Errorf(api.Conflict, "create %s: it needs %v of memory, the guests and replicas here take up to %v of this host's %v",
			spec.Name, need.Memory/vm.MiB*vm.MiB, used.Memory/vm.MiB*vm.MiB, has.Memory/vm.MiB*vm.MiB).
			WithHint("Stopped guests count too. Give it less memory, or remove a guest; `vmctl vm ls` lists them.")
	}
	if has.Files > 0 && need.Files+used.Files > has.Files {
		return api.Errorf(api.Conflict, "create %s: its memory is %v, that of the guests and replicas here up to %v, and %s, where it is, has %v",
			spec.Name, need.Files/vm.MiB*vm.MiB, used.Files/vm.MiB*vm.MiB, n.config.RAMDir, has.Files/vm.MiB*vm.MiB).
			WithHint("Stopped guests count too. Mount that tmpfs larger (`mount -o remount,size=...`, and /etc/fstab), start the agent with another --ram-dir, or give it less memory.")
	}
	return nil
}

// admitAlone refuses what would make the pair unable to go on with one node:
// memory counts in full, CPUs are only warned of. force lets it pass.
func (n *Node) admitAlone(word string, spec vm.Spec, force bool) (warnings []string, err error) {
	record, _ := n.members.current()
	if _, paired := n.members.peer(); !paired {
		return nil, nil
	}
	if text := n.copiesTight(spec); text != "" {
		warnings = append(warnings, text)
	}
	without := spec
	without.Name = ""
	for _, m := range record.Members {
		has, known := n.capacityOf(m.Name)
		need, before := n.neededAlone(m.Name, spec), n.neededAlone(m.Name, without)
		if !known || need == before {
			continue
		}
		if lacks(need, has) != "" && (need.Memory > before.Memory || need.Files > before.Files) {
			text := word + " " + spec.Name + ": " + tightText(m.Name, need, has)
			if !force {
				return nil, api.Errorf(api.Unsafe, "%s", text).
					WithHint("Stop guests, give them less memory or less protection, or give --force: then not all of them come back after a failure.")
			}
			n.journal.record(warning, "overcommitted", spec.Name, text+"; it was forced")
			warnings = append(warnings, text)
		}
		if spec.CPUs > has.CPUs {
			warnings = append(warnings, fmt.Sprintf("%s has %d CPUs on %s, which has %d", spec.Name, spec.CPUs, m.Name, has.CPUs))
		} else if need.CPUs > has.CPUs && before.CPUs <= has.CPUs {
			warnings = append(warnings, fmt.Sprintf("if the other node fails, guests with %d CPUs run on the %d of %s", need.CPUs, has.CPUs, m.Name))
		}
	}
	return warnings, nil
}

// checkPlace refuses an order of starts and a home that cannot be, which only
// the cluster knows. before is the spec that is replaced, or nil.
func (n *Node) checkPlace(word string, spec vm.Spec, before *vm.Spec) error {
	after := spec.Recovery.After
	if before == nil || !slices.Equal(before.Recovery.After, after) {
		known := map[string][]string{}
		for _, g := range n.guests.list() {
			s := g.spec()
			known[s.Name] = s.Recovery.After
		}
		if problem := recovery.CheckOrder(spec.Name, after, known); problem != "" {
			return api.Errorf(api.Usage, "%s %s: %s", word, spec.Name, problem)
		}
	}
	home := spec.Recovery.Home
	if home == n.config.Name || before != nil && before.Recovery.Home == home {
		return nil
	}
	record, _ := n.members.current()
	if !slices.ContainsFunc(record.Members, func(m memberInfo) bool { return m.Name == home }) {
		return api.Errorf(api.Usage, "%s %s: recovery home %q is no node of this cluster", word, spec.Name, home)
	}
	return nil
}
