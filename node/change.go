package node

import (
	"context"

	"go.yaml.in/yaml/v3"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/vm"
)

// Change implements api.Machines. Protection, isolation, restart policy and autostart
// change at once, hardware only while the guest is stopped.
func (n *Node) Change(ctx context.Context, name string, change []byte, force bool) (api.VM, error) {
	g, err := n.ownGuest(name)
	if err != nil {
		return api.VM{}, err
	}
	g.op.Lock()
	defer g.op.Unlock()
	old := g.spec()
	spec, err := n.changed(g, old, change)
	if err != nil {
		return api.VM{}, err
	}
	hardware := string(specHash(spec)) != string(specHash(old))
	var warnings []string
	if g.isWanted() && (hardware || spec.Protection.Level != old.Protection.Level) {
		if warnings, err = n.admitAlone("change", spec, force); err != nil {
			return api.VM{}, err
		}
	}
	if spec.Protection.Level != old.Protection.Level {
		err := n.decider.request(ctx, func(id uint64) ha.Event {
			return ha.SetLevel{ID: id, Guest: ha.GuestID(g.id), Level: ha.Level(spec.Protection.Level)}
		})
		if err != nil {
			return api.VM{}, err
		}
	}
	if err := g.write(func(r *guestRecord) { r.Spec = spec }); err != nil {
		return api.VM{}, err
	}
	if spec.Protection.Level != vm.ProtectNone { // what was answered holds on the peer, too
		if err := n.compareNow(ctx); err != nil {
			g.log.Info("the peer hears of a change later", "reason", err)
		}
	}
	n.journal.record(info, "guest-changed", spec.Name, spec.Name+" changed")
	v := n.view(ctx, g)
	v.Warnings = warnings
	return v, nil
}

// changed is the guest's spec with a change, if it may be made now.
func (n *Node) changed(g *guest, old vm.Spec, change []byte) (vm.Spec, error) {
	spec, err := vm.ChangeSpec(old, change)
	if err != nil {
		return spec, err
	}
	if spec.Name != old.Name || spec.UUID != old.UUID {
		return spec, api.Errorf(api.Usage, "change %s: name and uuid of a guest do not change", old.Name)
	}
	spec = spec.Defaults(n.host)
	if err := spec.Validate(n.host); err != nil {
		return spec, err
	}
	if !sameFiles(old, spec) {
		return spec, api.Errorf(api.Usage, "change %s: disks, kernel and initrd of a guest cannot be changed yet", old.Name).
			WithHint("`vmctl vm disk resize %s DISK SIZE` makes a disk larger; for anything else make another guest.", old.Name)
	}
	if string(specHash(spec)) != string(specHash(old)) && g.running() {
		return spec, api.Errorf(api.Conflict, "change %s: its hardware changes only while it is stopped", old.Name).
			WithHint("`vmctl vm stop %s` first.", old.Name)
	}
	if spec.Recovery.Home == "" {
		spec.Recovery.Home = n.config.Name // from before homes were kept
	}
	return spec, n.checkPlace("change", spec, &old)
}

func sameFiles(a, b vm.Spec) bool {
	text := func(s vm.Spec) string {
		out, err := yaml.Marshal([]any{s.Disks, s.Kernel, s.Initrd})
		if err != nil {
			return err.Error()
		}
		return string(out)
	}
	return text(a) == text(b)
}
