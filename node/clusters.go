package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// Init implements api.Clusters.
func (n *Node) Init(ctx context.Context, name string) (api.Cluster, error) {
	if err := n.members.found(name); err != nil {
		return api.Cluster{}, err
	}
	n.journal.record(info, "cluster-made", "", "cluster "+name+" made")
	return n.Cluster(ctx)
}

// NewToken implements api.Clusters.
func (n *Node) NewToken(context.Context) (api.Token, error) { return n.members.newToken() }

// Join implements api.Clusters.
func (n *Node) Join(ctx context.Context, addr, token string) (api.Cluster, error) {
	if err := checkAddr(addr); err != nil {
		return api.Cluster{}, api.Errorf(api.Usage, "join: %v", err)
	}
	mode, err := n.members.join(ctx, addr, token)
	if err != nil {
		return api.Cluster{}, err
	}
	ctx = context.WithoutCancel(ctx) // this node is a member now, whoever still waits
	if err := n.joinAnew(ctx); err != nil {
		return api.Cluster{}, err
	}
	if err := n.pair(ctx); err != nil {
		return api.Cluster{}, err
	}
	n.journal.record(info, "cluster-joined", "", "joined the cluster through "+addr)
	n.exchange.soon()
	n.awaitPeer(ctx, mode)
	return n.Cluster(ctx)
}

// joinBits is how many starts of an agent are told apart between two joins.
const joinBits = 32

// joinAnew makes the lease core that of a later incarnation than any that a node of
// this name was in the cluster: peer and witness take the words of an earlier one for
// old, and one that replaces a lost host counts its starts from one.
func (n *Node) joinAnew(ctx context.Context) error {
	record, _ := n.members.current()
	var failed error
	err := n.decider.inspect(ctx, func(*ha.Core) {
		failed = n.self.change(func(r *nodeRecord) { r.Boot = max(r.Boot, record.Joins<<joinBits) + 1 })
		if failed == nil {
			failed = n.coreAnew()
		}
	})
	return errors.Join(err, failed)
}

// coreAnew puts another lease core in the place of the one there is. The decider has
// to be held.
func (n *Node) coreAnew() error {
	if err := n.loadCore(); err != nil {
		return err
	}
	n.alarms.lapse()
	n.neighbour.silent(false, "")
	return nil
}

// joinBound is how long a join waits until the peer is heard and has said what it has
// and what the third vote is.
const joinBound = 3 * time.Second

// awaitPeer lets who has just joined see the peer, and the third vote, as they will be
// in a moment. A peer that is heard by an acknowledgement alone has not said the latter.
func (n *Node) awaitPeer(ctx context.Context, mode ha.Mode) {
	ctx, cancel := context.WithTimeout(ctx, joinBound)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, told := n.exchange.peer(); told > 0 && n.peerHeard() && (mode == "" || n.mode(ctx) == mode) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// mode is the third vote that the lease core knows of; empty: it does not answer.
func (n *Node) mode(ctx context.Context) (mode ha.Mode) {
	if n.decider.inspect(ctx, func(c *ha.Core) { mode = c.Status().Cluster.Mode }) != nil {
		return ""
	}
	return mode
}

// serveJoin takes a node into the cluster.
func (n *Node) serveJoin(ctx context.Context, conn *wire.Conn, _ wire.Hello) {
	var request peer.JoinRequest
	err := peer.Answer(conn, &request, func() (any, error) {
		reply, err := n.members.admit(request, conn.Remote(), n.mode(ctx))
		if err != nil {
			return nil, err
		}
		return reply, n.pair(ctx)
	})
	if err != nil {
		n.journal.seldom(warning, "join-refused", "", fmt.Sprintf("%q may not join: %v", request.Node, err))
		return
	}
	n.journal.record(info, "node-joined", "", request.Node+" joined the cluster")
	n.exchange.soon()
}

// pair tells the lease core of both nodes. A configuration of theirs that is
// newer, with a witness in it, comes with the first heartbeat.
func (n *Node) pair(ctx context.Context) error {
	record, _ := n.members.current()
	if other, ok := n.members.peer(); ok { // what an earlier node of that name said is over
		if err := n.neighbour.forget(other.Name); err != nil {
			return err
		}
	}
	var nodes [2]ha.NodeID
	for i, member := range record.Members {
		nodes[i] = ha.NodeID(member.Name)
	}
	return n.configure(ctx, func(c *ha.Cluster) { c.Nodes = nodes })
}

// configure changes the lease core's configuration.
func (n *Node) configure(ctx context.Context, change func(*ha.Cluster)) error {
	var cluster ha.Cluster
	if err := n.decider.inspect(ctx, func(c *ha.Core) { cluster = c.Status().Cluster }); err != nil {
		return err
	}
	before := cluster
	change(&cluster)
	if cluster == before {
		return nil
	}
	cluster.Gen, cluster.By = cluster.Gen+1, ha.NodeID(n.config.Name)
	return n.decider.request(ctx, func(id uint64) ha.Event { return ha.SetCluster{ID: id, Cluster: cluster} })
}

// Cluster implements api.Clusters.
func (n *Node) Cluster(ctx context.Context) (api.Cluster, error) {
	record, id := n.members.current()
	if id == nil {
		return api.Cluster{}, errNoCluster("look at the cluster")
	}
	var core ha.Status
	if err := n.decider.inspect(ctx, func(c *ha.Core) { core = c.Status() }); err != nil {
		return api.Cluster{}, err
	}
	out := api.Cluster{Name: id.ClusterName, ID: id.Cluster, Mode: string(core.Cluster.Mode), Self: n.config.Name}
	for _, m := range record.Members {
		member := api.Member{Name: m.Name, Addr: m.Addr, Reachable: true}
		if m.Name != n.config.Name {
			member.Reachable, member.SeenAgo = contactOf(core, core.PeerHeard)
			member.State = n.neighbour.word()
		}
		has, _ := n.capacityOf(m.Name)
		need, fits := n.fit(m.Name)
		member.CPUs, member.MemoryBytes = has.CPUs, int64(has.Memory)
		member.FileBytes, member.NeededFileBytes = int64(has.Files), int64(need.Files)
		member.NeededCPUs, member.NeededBytes, member.Fits = need.CPUs, int64(need.Memory), fits
		out.Members = append(out.Members, member)
	}
	out.Bias, out.FenceDelaySeconds = string(core.Cluster.Bias), core.Cluster.FenceDelay.Seconds()
	if core.Cluster.Mode == ha.ModeWitness {
		w, _ := record.witness(core.Cluster.Witness)
		out.Witness = &api.Witness{Name: w.Name, Addr: w.Addr}
		out.Witness.Reachable, out.Witness.SeenAgo = contactOf(core, core.WitnessHeard)
	}
	return out, nil
}

// AddWitness implements api.Witnesses.
func (n *Node) AddWitness(ctx context.Context, addr, text string) (api.Witness, error) {
	id := n.members.Identity()
	if id == nil {
		return api.Witness{}, errNoCluster("add a witness")
	}
	token, err := peer.ParseToken(text, peer.WitnessToken)
	if err != nil {
		return api.Witness{}, api.Errorf(api.Usage, "%v", err)
	}
	if err := checkAddr(addr); err != nil {
		return api.Witness{}, api.Errorf(api.Usage, "add a witness: %v", err)
	}
	if err := n.mayChange(ctx, "add a witness"); err != nil {
		return api.Witness{}, err
	}
	reply, err := id.Enrol(ctx, addr, token)
	if err != nil {
		return api.Witness{}, connectError(err, "Is `vmctl witness run` running there, and is the port open?", "`vmctl witness token` on the machine with that address prints its token.")
	}
	told := witnessInfo{ID: peer.WitnessID(token.Fingerprint), Name: reply.Witness, Addr: addr, Fingerprint: token.Fingerprint}
	if err := n.members.addWitnesses([]witnessInfo{told}); err != nil {
		return api.Witness{}, err
	}
	if n.peerHeard() { // it must know where the witness is before it is told to use it
		if err := n.exchange.now(ctx); err != nil {
			n.log.Warn("the peer does not know the witness yet", "error", err)
		}
	}
	err = n.configure(ctx, func(c *ha.Cluster) { c.Mode, c.Witness = ha.ModeWitness, ha.NodeID(told.ID) })
	if err != nil {
		return api.Witness{}, err
	}
	n.journal.record(info, "witness-added", "", fmt.Sprintf("witness %s at %s is the third vote", told.Name, addr))
	return api.Witness{Name: told.Name, Addr: addr, Reachable: true}, nil
}

// RemoveWitness implements api.Witnesses.
func (n *Node) RemoveWitness(ctx context.Context) error {
	cluster, err := n.Cluster(ctx)
	if err != nil {
		return err
	}
	if cluster.Witness == nil {
		return api.Errorf(api.NotFound, "remove the witness: there is none")
	}
	if err := n.mayChange(ctx, "remove the witness"); err != nil {
		return err
	}
	err = n.configure(ctx, func(c *ha.Cluster) { c.Mode, c.Witness = ha.ModeNone, "" })
	if err == nil {
		n.journal.record(warning, "witness-removed", "", "there is no third vote any more: nothing is started by itself when a node dies")
	}
	return err
}
