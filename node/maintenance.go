package node

import (
	"context"
	"fmt"

	"vmctl/node/api"
	"vmctl/vm"
)

// Maintenance implements api.Hosts. On: this node gives its protected guests to
// the peer and takes no new ones. What cannot be moved stays and is reported.
func (n *Node) Maintenance(ctx context.Context, on bool) (api.Maintenance, error) {
	n.creating.Lock()
	defer n.creating.Unlock()
	report := api.Maintenance{Node: n.config.Name, On: on, Moved: []string{}, Stay: []api.Stay{}, Stopped: []api.Stay{}}
	if before := n.self.maintenance(); before != on {
		if err := n.self.change(func(r *nodeRecord) { r.Maintenance = on }); err != nil {
			return api.Maintenance{}, err
		}
	}
	if !on {
		n.journal.record(info, "maintenance-off", "", "this node takes guests again")
		n.tellPeer(ctx)
		return report, nil
	}
	n.journal.record(warning, "maintenance-on", "", "this node gives its guests away")
	// It is told before anything is done, so that its absence is not mistaken
	// for a failure, whatever happens next.
	refusal := n.askPeer(ctx)
	for _, g := range n.guests.list() {
		if !g.isOwner() {
			continue
		}
		err := refusal
		if err == nil {
			err = n.moveAway(ctx, g)
		}
		switch {
		case err == nil:
			report.Moved = append(report.Moved, g.name())
		case g.running() || g.isWanted():
			report.Stay = append(report.Stay, api.Stay{VM: g.name(), Reason: err.Error()})
		default:
			report.Stopped = append(report.Stopped, api.Stay{VM: g.name(), Reason: err.Error()})
		}
	}
	for _, stay := range report.Stay {
		n.journal.record(warning, "guest-stays", stay.VM, fmt.Sprintf("%s stays on this node, which is in maintenance: %s", stay.VM, stay.Reason))
	}
	return report, nil
}

// moveAway gives a guest to the peer, running or not.
func (n *Node) moveAway(ctx context.Context, g *guest) error {
	if g.running() || g.isWanted() || g.spec().Protection.Level == vm.ProtectNone {
		return n.handOver(ctx, g)
	}
	g.op.Lock()
	defer g.op.Unlock()
	g.mu.Lock()
	last := g.here.Epoch
	g.mu.Unlock()
	if err := n.give(ctx, g, moment{Epoch: last}); err != nil {
		return err
	}
	n.journal.record(info, "guest-handed-over", g.name(), fmt.Sprintf("%s, which is stopped, was handed over to %s", g.name(), g.ownerName()))
	return nil
}

// refusesGuests is why no guest is made or started here by hand.
func (n *Node) refusesGuests(verb, name string) error {
	switch record := n.self.current(); {
	case record.Down:
		return api.Errorf(api.Conflict, "%s %s: this node is being shut down", verb, name)
	case record.Maintenance:
		return api.Errorf(api.Conflict, "%s %s: this node is in maintenance", verb, name).
			WithHint("`vmctl node maintenance off` ends it.")
	}
	return nil
}

// state is what the peer is to know of this node.
func (n *Node) state() nodeState {
	record := n.self.current()
	return nodeState{Node: n.config.Name, Version: record.Version, Maintenance: record.Maintenance, Down: record.Down}
}

// heard takes what the peer says of itself.
func (n *Node) heard(state nodeState, kept map[string][]keptDisks) {
	n.neighbour.heard(state)
	n.neighbour.heardKept(kept)
}

// tellPeer lets the peer know of a change of state, now if it answers.
func (n *Node) tellPeer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	if _, paired := n.members.peer(); !paired {
		return
	}
	if err := n.exchange.now(ctx); err != nil {
		n.log.Info("the peer was not told of this node's state; it will be when it is back", "error", err)
	}
}

// standing is what both nodes' states mean for a guest, for people; empty: nothing.
func (n *Node) standing(g *guest) string {
	peer, here := n.neighbour.announced(), n.self.maintenance()
	switch own := g.isOwner(); {
	case own && peer != "":
		return fmt.Sprintf("%s: it is no target of a handover; while it is up it would still take %s over if this node died, because nobody else could", peer, g.name())
	case !own && here:
		return fmt.Sprintf("this node is in maintenance: %s is not handed over to it; it would still take %s over if %s died, because nobody else could", g.name(), g.name(), g.ownerName())
	}
	return ""
}
