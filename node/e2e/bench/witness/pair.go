package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/vm/guard"
)

// node is one host of a pair: a core and its link to the witness.
type node struct {
	self   ha.NodeID
	core   *ha.Core
	links  *lease.Links
	peer   *node
	events chan ha.Event
	times  *times

	mu   sync.Mutex
	sent map[uint64]time.Time // heartbeats to the witness that wait for an answer
}

// pair makes a cluster of two nodes with their identities.
func pair(name string) (a, b *peer.Identity, err error) {
	if a, err = peer.Found(uuid.NewString(), name, name+"-host-a"); err != nil {
		return nil, nil, err
	}
	key, err := peer.NewKey()
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.ParseECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	reply, err := a.Admit(peer.JoinRequest{Node: name + "-host-b", PublicKey: public}, nil)
	if err != nil {
		return nil, nil, err
	}
	reply.Sealed.Node, reply.Sealed.Key = name+"-host-b", key
	b, err = peer.Open(reply.Sealed)
	return a, b, err
}

// newNode makes a node whose lease links lead to the witness only.
func newNode(ctx context.Context, id, other *peer.Identity, to peer.Remote, times *times) (*node, error) {
	n := &node{
		self: ha.NodeID(id.Node), events: make(chan ha.Event, 1024), sent: map[uint64]time.Time{}, times: times,
	}
	cluster := ha.Cluster{
		Gen: 1, By: "a", Nodes: [2]ha.NodeID{n.self, ha.NodeID(other.Node)},
		Mode: ha.ModeWitness, Witness: ha.NodeID(peer.WitnessID(to.Fingerprint)),
	}
	core, err := ha.NewCore(ha.Setup{
		Self: n.self, Boot: 1, Timing: ha.DefaultTiming(), Start: ha.Time(guard.Now()), Cluster: cluster,
	})
	if err != nil {
		return nil, err
	}
	n.core = core
	n.links = lease.New(ctx,
		func(ctx context.Context, _ ha.NodeID) (*wire.Conn, error) {
			return id.Dial(ctx, to, lease.Purpose, "", lease.WitnessOptions())
		},
		n.answered,
		func(_ ha.NodeID, up bool) { n.tell(ha.WitnessLink{Up: up}) },
		slog.New(slog.DiscardHandler))
	return n, nil
}

func (n *node) tell(event ha.Event) {
	select {
	case n.events <- event:
	default:
	}
}

// answered takes what the witness says.
func (n *node) answered(m ha.Message) {
	if ack, ok := m.(ha.Ack); ok {
		n.mu.Lock()
		if at, known := n.sent[ack.Seq]; known {
			n.times.add(time.Since(at))
			delete(n.sent, ack.Seq)
		}
		n.mu.Unlock()
	}
	n.tell(ha.Received{Message: m})
}

// run owns guests and steps the core until ctx ends.
func (n *node) run(ctx context.Context, guests int, after time.Duration) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	for range guests {
		n.step(ha.Own{Record: ha.Record{Guest: ha.GuestID(uuid.NewString()), Run: true, Level: ha.LevelResume}})
	}
	n.step(ha.PeerLink{Up: true})
	ticker := time.NewTicker(ha.DefaultTiming().Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-n.events:
			n.step(event)
		case <-ticker.C:
			n.step(ha.Tick{})
		}
	}
}

// step plays a guard that arms at once and a replication that is in sync.
func (n *node) step(event ha.Event) {
	for _, action := range n.core.Step(ha.Time(guard.Now()), event) {
		switch a := action.(type) {
		case ha.Send:
			n.send(a)
		case ha.Renew:
			if a.Arm != 0 {
				n.tell(ha.Armed{Guest: a.Guest, Arm: a.Arm})
			}
		case ha.Settled:
			if a.Rev == 1 {
				n.tell(ha.ReplicaState{Guest: a.Guest, Epoch: a.Epoch, InSync: true})
			}
		}
	}
}

func (n *node) send(a ha.Send) {
	if a.To == n.peer.self {
		n.peer.tell(ha.Received{Message: a.Message})
		return
	}
	if hb, ok := a.Message.(ha.Heartbeat); ok {
		n.mu.Lock()
		n.sent[hb.Seq] = time.Now()
		n.mu.Unlock()
		n.times.count()
	}
	n.links.Send(a.To, a.Message)
}

// enrol makes the witness serve a pair.
func enrol(ctx context.Context, id *peer.Identity, addr, dir string) error {
	token, err := readToken(dir)
	if err == nil {
		_, err = id.Enrol(ctx, addr, token)
	}
	if err != nil {
		return fmt.Errorf("enrol %s: %w", id.ClusterName, err)
	}
	return nil
}
