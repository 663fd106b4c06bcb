package node

import (
	"context"
	"fmt"
	"iter"
	"os"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/guard"
)

// showBound bounds what a look at a guest may take: a frozen one does not
// answer at all.
const showBound = time.Second

// backend is the agent as the API sees it.
func (n *Node) backend() *api.Backend {
	return &api.Backend{
		Node: n.config.Name, Machines: n, Operator: n, Clusters: n, Witnesses: n, Observer: n, Hosts: n, Thirds: n, Verifier: n, Resizer: n, Router: n, Log: n.log,
	}
}

// List implements api.Machines: the owner's own word for its guests where it
// can be had.
func (n *Node) List(ctx context.Context) ([]api.VM, error) {
	list := []api.VM{}
	var theirs map[string]api.VM
	for _, g := range n.guests.list() {
		if !g.isOwner() && theirs == nil {
			theirs = n.peersView(ctx)
		}
		v, ok := theirs[g.id]
		if !ok || g.isOwner() {
			v = n.view(ctx, g)
		}
		v.Spec = nil
		list = append(list, v)
	}
	return list, nil
}

// peersView is what the peer says of its guests, by UUID; empty if it cannot be
// asked.
func (n *Node) peersView(ctx context.Context) map[string]api.VM {
	views := map[string]api.VM{}
	if !n.peerHeard() {
		return views
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, g := range n.guests.list() {
		if g.isOwner() {
			continue
		}
		v, err := n.peerClient().VM(ctx, g.id)
		if err != nil && api.AsError(err).Code == api.NotFound {
			continue // it has not heard of the guest yet
		}
		if err != nil {
			break
		}
		if v.Owner == v.Node {
			views[g.id] = v
		}
	}
	return views
}

// Show implements api.Machines.
func (n *Node) Show(ctx context.Context, name string) (api.VM, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return api.VM{}, err
	}
	return n.view(ctx, g), nil
}

// view is a guest as this node sees it.
func (n *Node) view(ctx context.Context, g *guest) api.VM {
	g.mu.Lock()
	spec, m := g.record.Spec, g.machine
	v := api.VM{
		Name: spec.Name, UUID: g.id, State: string(vm.StateStopped), Reason: g.status.failure, Owner: string(g.owner), Epoch: g.epoch,
		Node: n.config.Name, Run: g.wanted(), Home: spec.Recovery.Home, CPUs: spec.CPUs, Memory: spec.Memory.String(), Spec: spec,
		Protection: api.Protection{Level: spec.Protection.Level, IntervalSeconds: spec.Protection.IntervalSeconds, ResyncRate: int64(spec.Protection.ResyncRate)},
		SerialLog:  g.layout.SerialLog(), Restarts: len(g.status.restarts),
	}
	own := g.owner == ha.NodeID(n.config.Name)
	if own && g.deadline != 0 {
		v.Lease = &api.Lease{Required: g.deadline != guard.Forever}
		if v.Lease.Required {
			v.Lease.RemainingSeconds = float64(g.deadline-guard.Now()) / 1e9
		}
	}
	sequence, waits := g.status.peerSeq, g.status.spare
	g.mu.Unlock()
	v.Kept = g.keptView()
	if !own {
		v.State, v.SerialLog = "unknown", ""
		v.Replica = &api.Replica{Node: n.config.Name, State: "standby", SyncedSequence: sequence, Standby: waits.State, StandbyReason: waits.Reason, Fallback: g.fallbackView()}
		return v
	}
	if m != nil {
		n.viewMachine(ctx, g, m, &v)
	}
	state := n.recoverer.state(g.id)
	v.Recovery = &api.Recovery{State: state.Phase, Reason: state.Text}
	if m == nil && v.Run && v.Reason == "" {
		v.Reason = state.Text
	}
	return v
}

func (n *Node) viewMachine(ctx context.Context, g *guest, m *machine, v *api.VM) {
	ctx, cancel := context.WithTimeout(ctx, showBound)
	defer cancel()
	v.PID, v.QMPSocket, v.Reason = m.guard.PID(), g.layout.AgentQMP(), ""
	v.State, v.GuestAgent = "unknown", viewAgent(m.clock)
	if g.spec().Display == vm.DisplayVNC {
		v.VNCSocket = g.layout.VNC()
	}
	if status, err := m.guard.Status(ctx); err == nil && status.Frozen {
		v.State, v.Reason = "frozen", "its lease has run out: neither peer nor witness confirms that this node may run it"
	} else if state, err := m.RunState(ctx); err == nil {
		v.State = string(state)
		if err := n.pausedByCheckpoint(ctx, m, v); err != nil {
			v.Reason = err.Error()
		}
	}
	if v.Protection.Level == vm.ProtectNone {
		return
	}
	other, _ := n.members.peer()
	g.mu.Lock()
	protector, reason, tried := m.protector, g.status.reason, g.status.trial
	g.mu.Unlock()
	phase, progress, left, resync := g.replicaView(protector)
	said, _ := n.exchange.peer()
	waits := said.Standbys[g.id]
	v.Replica = &api.Replica{Node: other.Name, State: phase, Reason: reason, Progress: progress, RemainingSeconds: left.Seconds(), Resync: resync,
		Standby: waits.State, StandbyReason: waits.Reason, Fallback: g.fallbackView()}
	if v.Protection.Level == vm.ProtectResume {
		v.Replica.Trial = &tried
	}
	v.Protection.Now = v.Covered()
	v.Verified = g.lastVerified()
	if protector == nil {
		return
	}
	if last := protector.Last(); last.Sequence != 0 {
		v.Checkpoint = &api.Checkpoint{
			Epoch: m.epoch, Sequence: last.Sequence, Time: api.Time{Time: last.Time},
			PauseMS: float64(last.Pause.Microseconds()) / 1000, Bytes: last.Bytes,
		}
		age := time.Since(last.Time).Seconds()
		v.RPOSeconds, v.Replica.SyncedSequence = &age, last.Sequence
	}
}

// pausedByCheckpoint shows a guest that stands still for a checkpoint as what
// it is to its user: running.
func (n *Node) pausedByCheckpoint(ctx context.Context, m *machine, v *api.VM) error {
	if v.State != string(vm.StatePaused) {
		return nil
	}
	return m.Exclusive(ctx, func(ctx context.Context) error {
		state, err := m.RunState(ctx)
		if err == nil {
			v.State = string(state)
		}
		return err
	})
}

// peerHeard says whether the lease core hears the peer.
func (n *Node) peerHeard() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	heard := false
	err := n.decider.inspect(ctx, func(c *ha.Core) { heard = recently(c.Status(), c.Status().PeerHeard) })
	return err == nil && heard
}

// Status implements api.Observer.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	vms, err := n.List(ctx)
	if err != nil {
		return api.Status{}, err
	}
	status := api.Status{Node: n.describe(), VMs: vms}
	if cluster, err := n.Cluster(ctx); err == nil {
		status.Cluster = &cluster
	}
	status.Protected, status.Summary = summary(status)
	return status, nil
}

// summary answers "am I protected?".
func summary(s api.Status) (bool, string) {
	wanted, covered := 0, 0
	tight := tightNode(s.Cluster)
	var missing, reason string
	for _, v := range s.VMs {
		if v.Protection.Level == vm.ProtectNone || !v.Run {
			continue
		}
		wanted++
		now := v.Covered()
		if now == v.Protection.Level {
			covered++
			continue
		}
		if missing == "" {
			missing, reason = v.Name, "has no complete replica"
			if v.Replica != nil && v.Replica.Reason != "" {
				reason += ": " + v.Replica.Reason
			}
		}
		if missing == v.Name && now == vm.ProtectRestart {
			reason = "would be booted, not resumed: " + v.Replica.Trial.Why()
		}
	}
	switch {
	case s.Cluster == nil || len(s.Cluster.Members) < 2:
		return false, "this node is alone; nothing takes over when it dies"
	case wanted == 0:
		return false, "no running guest asks for protection"
	case covered < wanted:
		return false, fmt.Sprintf("%d of %d protected guests are covered as they shall be; %s %s", covered, wanted, missing, reason)
	case tight != nil:
		return false, tightText(tight.Name, vm.Use{Memory: vm.Size(tight.NeededBytes), Files: vm.Size(tight.NeededFileBytes)}, vm.Use{Memory: vm.Size(tight.MemoryBytes), Files: vm.Size(tight.FileBytes)}) + ": not all of them would run"
	case s.Cluster.Mode == string(ha.ModeNone):
		return false, replicated(covered) + ", but without a third vote nothing is started by itself"
	case s.Cluster.Witness != nil && !s.Cluster.Witness.Reachable:
		return false, replicated(covered) + ", but the witness cannot be reached"
	}
	return true, fmt.Sprintf("%d of %d protected guests would be taken over", covered, wanted)
}

func replicated(guests int) string {
	if guests == 1 {
		return "1 guest is replicated"
	}
	return fmt.Sprintf("%d guests are replicated", guests)
}

// tightNode is a node that could not hold all protected guests alone, if one is
// known.
func tightNode(c *api.Cluster) *api.Member {
	for i := 0; c != nil && i < len(c.Members); i++ {
		if fits := c.Members[i].Fits; fits != nil && !*fits {
			return &c.Members[i]
		}
	}
	return nil
}

func (n *Node) describe() api.Node {
	return api.Node{
		Name: n.config.Name, Version: n.config.Version, PID: os.Getpid(), Started: api.Time{Time: n.started}, Listen: n.config.Listen,
		Accel: n.host.Accel, QEMU: n.qemu, CPUs: n.host.CPUs, MemoryBytes: int64(n.host.Memory),
		Maintenance: n.self.maintenance(), Guests: len(n.guests.list()), Alarms: n.alarms.list(),
		Notify: n.notifyTargets(),
	}
}

// Events implements api.Observer.
func (n *Node) Events(ctx context.Context, filter api.EventFilter) iter.Seq2[api.Event, error] {
	n.journal.flush()
	return n.journal.events(ctx, filter)
}

// recently says whether a voter was heard within the protocol's window.
func recently(core ha.Status, heard ha.Time) bool {
	return heard != 0 && time.Duration(core.Now-heard) <= ha.DefaultTiming().Window()
}

// contactOf is when a voter was heard, for people.
func contactOf(core ha.Status, heard ha.Time) (bool, *float64) {
	if heard == 0 {
		return false, nil
	}
	seconds := float64(core.Now-heard) / 1e9
	return recently(core, heard), &seconds
}
