package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/fence"
)

// fenceCheckEvery is how often the fencing device is asked whether it would
// work: a broken one should be known before it is needed.
const fenceCheckEvery = 10 * time.Minute

// switchOff executes a shot at the peer and tells the core what came of it.
func (n *Node) switchOff(ctx context.Context, order ha.Fence) {
	result := ha.Fenced{ID: order.ID, Err: "no fencing device is configured here"}
	if device := n.config.Fence; device != nil {
		n.journal.record(alarm, "fencing", "", fmt.Sprintf("%s is silent: switching it off with %s", order.Node, device.Agent))
		err := device.Off(ctx, n.log)
		if ctx.Err() != nil {
			return // the next agent orders its own shot
		}
		result.OK, result.Err = err == nil, ""
		if err != nil {
			result.Err = err.Error()
		}
	}
	if result.OK {
		n.journal.record(warning, "fenced", "", fmt.Sprintf("%s is off: %s confirmed it", order.Node, n.config.Fence.Agent))
	}
	n.decider.tell(result)
}

// CheckFence implements api.Thirds: it asks this node's device for the power of
// the peer, and changes nothing.
func (n *Node) CheckFence(ctx context.Context) (api.FenceCheck, error) {
	check := api.FenceCheck{Node: n.config.Name}
	other, _ := n.members.peer()
	device := n.config.Fence
	if other.Name == "" {
		return check, api.Errorf(api.Conflict, "check the fencing device: node %s has no peer that it could switch off", n.config.Name).WithHint("See `vmctl cluster join --help`.")
	}
	if device == nil {
		return check, api.Errorf(api.Conflict, "check the fencing device: node %s has no fencing device for its peer", n.config.Name).
			WithHint("Put a `fence:` section into its config file, see vmctl(8), and restart its agent.")
	}
	check.Agent, check.Peer = device.Agent, other.Name
	power, err := device.Verify(ctx, n.log)
	if err != nil {
		return check, api.Errorf(api.Failed, "node %s asks its fencing device for the power of %s: %v", n.config.Name, other.Name, err)
	}
	check.Power = power.String()
	if power == fence.Off && n.peerHeard() {
		return check, api.Errorf(api.Failed, "the fencing device of node %s says that %s is off, but it is up: it is the device of another machine", n.config.Name, other.Name)
	}
	return check, nil
}

// watchFence raises an alarm while the mode is fence and the device here would
// not work.
func (n *Node) watchFence(ctx context.Context) {
	const kind = "fence-unverified"
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var checked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var mode ha.Mode
		if n.decider.inspect(ctx, func(c *ha.Core) { mode = c.Status().Cluster.Mode }) != nil {
			return
		}
		if mode != ha.ModeFence {
			n.alarms.set(kind, "", false, "")
			checked = time.Time{}
			continue
		}
		if time.Since(checked) < fenceCheckEvery {
			continue
		}
		_, err := n.CheckFence(ctx)
		if ctx.Err() != nil {
			return
		}
		checked = time.Now()
		text := ""
		if err != nil {
			text = err.Error()
		}
		n.alarms.set(kind, "", err != nil, text)
	}
}

// SetMode implements api.Thirds: it changes who the third vote is.
func (n *Node) SetMode(ctx context.Context, change api.ModeChange) (api.Cluster, error) {
	other, paired := n.members.peer()
	mode := ha.Mode(change.Mode)
	switch {
	case n.members.Identity() == nil:
		return api.Cluster{}, errNoCluster("set the mode " + change.Mode)
	case mode == ha.ModeWitness:
		return api.Cluster{}, api.Errorf(api.Usage, "set the mode witness: a witness is added by its address").
			WithHint("`vmctl witness add ADDR:PORT --token T`")
	case mode != ha.ModeNone && mode != ha.ModeFence && mode != ha.ModeBias:
		return api.Cluster{}, api.Errorf(api.Usage, "set the mode %q: it is none, fence or bias", change.Mode)
	case mode == ha.ModeBias && change.Bias != n.config.Name && (change.Bias != other.Name || !paired):
		return api.Cluster{}, api.Errorf(api.Usage, "set the mode bias: %q is none of the two nodes", change.Bias).WithHint("Say which with --bias NODE.")
	case mode != ha.ModeNone && !paired:
		return api.Cluster{}, api.Errorf(api.Conflict, "set the mode %s: this node has no peer yet", mode).WithHint("See `vmctl cluster join`.")
	}
	if err := n.mayChange(ctx, "set the mode "+change.Mode); err != nil {
		return api.Cluster{}, err
	}
	if mode == ha.ModeFence {
		if err := n.fencesWork(ctx, other.Name); err != nil {
			return api.Cluster{}, err
		}
	}
	err := n.configure(ctx, func(c *ha.Cluster) {
		c.Mode, c.Witness, c.Bias, c.FenceDelay = mode, "", "", 0
		switch mode {
		case ha.ModeBias:
			c.Bias = ha.NodeID(change.Bias)
		case ha.ModeFence:
			c.FenceDelay = time.Duration(change.DelaySeconds * float64(time.Second))
		}
	})
	if err != nil {
		return api.Cluster{}, err
	}
	texts := map[ha.Mode]string{
		ha.ModeNone: "there is no third vote: nothing is started by itself when a node dies", ha.ModeFence: "a silent node is switched off before its guests are taken over",
		ha.ModeBias: "only " + change.Bias + " takes guests over by itself",
	}
	n.journal.record(warning, "mode-changed", "", texts[mode])
	return n.Cluster(ctx)
}

// mayChange refuses to change a third vote while the peer is silent: what it owns
// could not be taken over any more, and what is owned here not by it.
func (n *Node) mayChange(ctx context.Context, what string) error {
	var core ha.Status
	if err := n.decider.inspect(ctx, func(c *ha.Core) { core = c.Status() }); err != nil {
		return err
	}
	other, paired := n.members.peer()
	if core.Cluster.Mode == ha.ModeNone || !paired || recently(core, core.PeerHeard) {
		return nil
	}
	return api.Errorf(api.Unsafe, "%s: node %s is silent, and the third vote that is in force decides about its guests", what, other.Name).
		WithHint("Wait until they are taken over, or bring %s back; `vmctl ha promote VM --confirm-peer-off` is for the case that neither comes.", other.Name)
}

// fencesWork refuses a mode that would fail when it is needed.
func (n *Node) fencesWork(ctx context.Context, other string) error {
	if _, err := n.CheckFence(ctx); err != nil {
		return err
	}
	if !n.peerHeard() {
		return api.Errorf(api.Unreachable, "set the mode fence: node %s cannot be asked whether its fencing device works", other)
	}
	_, err := n.peerClient().CheckFence(ctx)
	return err
}
