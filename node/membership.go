package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/store"
)

// membership holds the cluster this node is in. Its record is replaced whole
// under the lock and durable before it is used.
type membership struct {
	db   *store.DB
	self string
	addr string // advertised

	mu       sync.Mutex
	record   clusterRecord
	identity *peer.Identity // nil: in no cluster
}

// errNoCluster is the API's answer where a cluster is needed for what was asked.
func errNoCluster(what string) error {
	return api.Errorf(api.Conflict, "%s: this node is in no cluster", what).
		WithHint("Run `vmctl cluster init NAME` here, or `vmctl cluster join ADDR:PORT --token T`.")
}

// load reads the stored cluster.
func (m *membership) load() error {
	var row store.Row[clusterRecord]
	err := m.db.View(func(tx *store.Tx) (err error) {
		row, err = clusterTable.Get(tx, only)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the cluster: %w", err)
	}
	m.record = row.Value
	m.identity, err = peer.Open(row.Value.Identity)
	return err
}

// save makes record durable, then current. The lock must be held.
func (m *membership) save(record clusterRecord) error {
	identity, err := peer.Open(record.Identity)
	if err != nil {
		return err
	}
	err = m.db.Update(func(tx *store.Tx) error {
		_, err := clusterTable.Put(tx, only, record)
		return err
	})
	if err != nil {
		return fmt.Errorf("store the cluster: %w", err)
	}
	m.record, m.identity = record, identity
	return nil
}

func (m *membership) current() (clusterRecord, *peer.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record, m.identity
}

// Identity is the node's own, nil while it is in no cluster.
func (m *membership) Identity() *peer.Identity {
	_, id := m.current()
	return id
}

// peer is the other node, if there is one.
func (m *membership) peer() (memberInfo, bool) {
	record, id := m.current()
	if id == nil {
		return memberInfo{}, false
	}
	return record.peerOf(m.self)
}

func (r clusterRecord) peerOf(self string) (memberInfo, bool) {
	for _, member := range r.Members {
		if member.Name != self {
			return member, true
		}
	}
	return memberInfo{}, false
}

// member refuses nodes that are not in the cluster now.
func (m *membership) member(node string) error {
	record, _ := m.current()
	if !slices.ContainsFunc(record.Members, func(i memberInfo) bool { return i.Name == node }) {
		return fmt.Errorf("node %q is not in this cluster any more: %w", node, peer.ErrStranger)
	}
	return nil
}

// dial connects to the peer for a purpose.
func (m *membership) dial(ctx context.Context, purpose, guest string, opts wire.Options) (*wire.Conn, error) {
	to, ok := m.peer()
	if !ok {
		return nil, api.Errorf(api.Unreachable, "there is no peer: this node is alone")
	}
	return m.Identity().Dial(ctx, peer.Remote{Name: to.Name, Addr: to.Addr}, purpose, guest, opts)
}

func (m *membership) found(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identity != nil {
		return api.Errorf(api.Conflict, "make cluster %s: this node is in cluster %s already", name, m.record.Identity.ClusterName).
			WithHint("`vmctl cluster leave` takes it out.")
	}
	if !nodeName.MatchString(name) {
		return api.Errorf(api.Usage, "cluster name %q: use lower-case letters, digits, '-' and '.', 63 at most", name)
	}
	if m.addr == "" {
		return api.Errorf(api.Conflict, "make cluster %s: this agent has no address for a peer", name).
			WithHint("Start it with --listen ADDR:PORT.")
	}
	id, err := peer.Found(uuid.NewString(), name, m.self)
	if err != nil {
		return err
	}
	return m.save(clusterRecord{Identity: id.Sealed, Members: []memberInfo{{m.self, m.addr}}})
}

// witness finds the witness with an id.
func (r clusterRecord) witness(id ha.NodeID) (witnessInfo, bool) {
	for _, w := range r.Witnesses {
		if w.ID == string(id) {
			return w, true
		}
	}
	return witnessInfo{}, false
}

// addWitnesses keeps what the peer, or an enrolment, told of witnesses.
func (m *membership) addWitnesses(told []witnessInfo) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	record := m.record
	record.Witnesses = slices.Clone(record.Witnesses)
	changed := false
	for _, w := range told {
		i := slices.IndexFunc(record.Witnesses, func(known witnessInfo) bool { return known.ID == w.ID })
		if i >= 0 && record.Witnesses[i].Addr == w.Addr {
			continue
		}
		if i >= 0 {
			record.Witnesses = slices.Delete(record.Witnesses, i, i+1)
		}
		record.Witnesses, changed = append(record.Witnesses, w), true
	}
	if !changed || m.identity == nil {
		return nil
	}
	return m.save(record)
}

// dialVoter connects to the peer or a witness for the lease protocol.
func (m *membership) dialVoter(ctx context.Context, to ha.NodeID) (*wire.Conn, error) {
	record, id := m.current()
	if id == nil {
		return nil, peer.ErrNoCluster
	}
	if w, ok := record.witness(to); ok {
		return id.Dial(ctx, peer.Remote{Addr: w.Addr, Fingerprint: w.Fingerprint}, lease.Purpose, "", lease.WitnessOptions())
	}
	if other, ok := record.peerOf(m.self); ok && other.Name == string(to) {
		return id.Dial(ctx, peer.Remote{Name: other.Name, Addr: other.Addr}, lease.Purpose, "", lease.Options())
	}
	return nil, fmt.Errorf("connect to %s: its address is not known yet: %w", to, peer.ErrUnreachable)
}
