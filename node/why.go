package node

import (
	"context"
	"strings"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/vm"
)

// HA implements api.Observer.
func (n *Node) HA(ctx context.Context) (api.HAStatus, error) {
	cluster, _ := n.Cluster(ctx)
	var core ha.Status
	if err := n.decider.inspect(ctx, func(c *ha.Core) { core = c.Status() }); err != nil {
		return api.HAStatus{}, err
	}
	status := api.HAStatus{Node: n.config.Name, Mode: string(core.Cluster.Mode), Witness: cluster.Witness, Guests: []api.HAGuest{}}
	for i := range cluster.Members {
		if cluster.Members[i].Name != n.config.Name {
			status.Peer = &cluster.Members[i]
		}
	}
	for _, g := range n.guests.list() {
		status.Guests = append(status.Guests, n.haGuest(g, core))
	}
	return status, nil
}

func (n *Node) haGuest(g *guest, core ha.Status) api.HAGuest {
	v := n.view(context.Background(), g)
	out := api.HAGuest{VM: v.Name, Owner: v.Owner, Epoch: v.Epoch, Run: v.Run, Protection: v.Protection.Level, Lease: v.Lease}
	g.mu.Lock()
	out.Verdict, out.Reason = string(g.verdict.Verdict), g.verdict.Reason
	g.mu.Unlock()
	for _, k := range core.Guests {
		if string(k.Guest) == g.id {
			out.Outdated = k.Outdated
			if k.LastGranted != 0 {
				seconds := float64(core.Now-k.LastGranted) / 1e9
				out.LastRenewal = &seconds
			}
		}
	}
	return out
}

// Why implements api.Observer.
func (n *Node) Why(ctx context.Context, name string) (api.Why, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return api.Why{}, err
	}
	g.mu.Lock()
	why := api.Why{VM: g.record.Spec.Name, Verdict: string(g.verdict.Verdict), Reason: g.verdict.Reason, Isolation: isolationOf(g.record.Spec), History: []api.Event{}}
	mine := g.mine()
	g.mu.Unlock()
	why.Fallback = g.fallbackView()
	if state := n.recoverer.state(g.id); mine {
		why.Recovery = &api.Recovery{State: state.Phase, Reason: state.Text}
	}
	if standing := n.standing(g); standing != "" {
		why.Reason = strings.TrimPrefix(why.Reason+"; "+standing, "; ")
	}
	n.journal.flush()
	for event, err := range n.journal.events(ctx, api.EventFilter{VM: why.VM}) {
		if err != nil {
			return why, err
		}
		why.History = append(why.History, event)
		if len(why.History) > whyLines {
			why.History = why.History[1:]
		}
	}
	return why, nil
}

// whyLines is how much of a guest's history an explanation shows.
const whyLines = 50

// isolationOf says what happens to a guest of this node when its lease ends.
func isolationOf(spec vm.Spec) string {
	switch {
	case spec.Protection.Level == vm.ProtectNone:
		return "not protected: it needs no lease, and nothing happens to it when peer and witness are silent"
	case spec.Isolation == vm.IsolationStop:
		return "stop: when its lease ends it is ended here, and booted when a lease is back"
	}
	return "freeze: when its lease ends it stands still, and goes on where it was when a lease is back"
}
