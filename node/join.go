package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/store"
)

// tokenLife is how long a join token is good.
const tokenLife = time.Hour

func (m *membership) newToken() (api.Token, error) {
	_, id := m.current()
	if id == nil {
		return api.Token{}, errNoCluster("make a token")
	}
	token, err := peer.NewToken(peer.JoinToken, id.CACert)
	if err != nil {
		return api.Token{}, err
	}
	expires := time.Now().Add(tokenLife)
	err = m.db.Update(func(tx *store.Tx) error {
		_, err := tokenTable.Create(tx, token.Hash(), tokenRecord{Expires: expires})
		return err
	})
	if err != nil {
		return api.Token{}, fmt.Errorf("store the token: %w", err)
	}
	return api.Token{Token: token.String(), Expires: api.Time{Time: expires}}, nil
}

// joinExtra is what a joining node learns beside its identity.
type joinExtra struct {
	Members   []memberInfo  `msgpack:"members"`
	Witnesses []witnessInfo `msgpack:"witnesses"`
	Joins     uint64        `msgpack:"joins,omitempty"` // with this one; 0 from an earlier version
	// Mode is the third vote; empty from an earlier version. The lease core hears of it
	// by a heartbeat, as ever: this says what to wait for.
	Mode ha.Mode `msgpack:"mode,omitempty"`
}

// admit answers a node that asks to join: its token is used up and the node is
// a member, durably and at once, before it gets its certificate.
func (m *membership) admit(request peer.JoinRequest, from net.Addr, mode ha.Mode) (peer.JoinReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refuse := func(code api.Code, format string, args ...any) (peer.JoinReply, error) {
		return peer.JoinReply{}, &wire.Refused{Code: string(code), Message: fmt.Sprintf(format, args...)}
	}
	if m.identity == nil {
		return refuse(api.Conflict, "%s is in no cluster", m.self)
	}
	if !nodeName.MatchString(request.Node) {
		return refuse(api.Usage, "node name %q is not usable", request.Node)
	}
	if request.Node == m.self {
		return refuse(api.Conflict, "this cluster has a node named %s already; start the agent with another --name", request.Node)
	}
	if other, ok := m.record.peerOf(m.self); ok && other.Name != request.Node {
		return refuse(api.Conflict, "the cluster is a pair already: %s and %s", m.self, other.Name)
	}
	if err := m.useToken(peer.Token{Secret: request.Secret}.Hash(), request.Node); err != nil {
		return peer.JoinReply{}, err
	}
	record := m.record
	record.Members = []memberInfo{{m.self, m.addr}, {request.Node, seenAddr(request.Addr, from)}}
	record.Joins++
	extra, err := msgpack.Marshal(joinExtra{record.Members, record.Witnesses, record.Joins, mode})
	if err != nil {
		return peer.JoinReply{}, fmt.Errorf("encode the members: %w", err)
	}
	reply, err := m.identity.Admit(request, extra)
	if err != nil {
		return reply, err
	}
	return reply, m.save(record)
}

// useToken marks a token used, or says why it is not good.
func (m *membership) useToken(hash, node string) error {
	return m.db.Update(func(tx *store.Tx) error {
		row, err := tokenTable.Get(tx, hash)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return &wire.Refused{Code: string(api.Unsafe), Message: "the token is not one of this cluster's; make one with `vmctl cluster token`"}
		case err != nil:
			return err
		case row.Value.UsedBy != "":
			return &wire.Refused{Code: string(api.Unsafe), Message: fmt.Sprintf("the token was used already, by %s; make another with `vmctl cluster token`", row.Value.UsedBy)}
		case time.Now().After(row.Value.Expires):
			return &wire.Refused{Code: string(api.Unsafe), Message: "the token has expired; make another with `vmctl cluster token`"}
		}
		row.Value.UsedBy = node
		_, err = tokenTable.Put(tx, hash, row.Value)
		return err
	})
}

// seenAddr replaces an unspecified host in an advertised address by the one
// the connection came from.
func seenAddr(advertised string, from net.Addr) string {
	host, port, err := net.SplitHostPort(advertised)
	if err != nil {
		return advertised
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return advertised
	}
	seen, _, err := net.SplitHostPort(from.String())
	if err != nil {
		return advertised
	}
	return net.JoinHostPort(seen, port)
}

// join makes this node a member, and says what the cluster's third vote is; empty:
// it is not known yet.
func (m *membership) join(ctx context.Context, addr, text string) (ha.Mode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identity != nil {
		return "", api.Errorf(api.Conflict, "join through %s: this node is in cluster %s already", addr, m.record.Identity.ClusterName).
			WithHint("`vmctl cluster leave` takes it out.")
	}
	if m.addr == "" {
		return "", api.Errorf(api.Conflict, "join through %s: this agent has no address for a peer", addr).
			WithHint("Start it with --listen ADDR:PORT.")
	}
	token, err := peer.ParseToken(text, peer.JoinToken)
	if err != nil {
		return "", api.Errorf(api.Usage, "%v", err)
	}
	id, extraBytes, err := peer.Join(ctx, addr, token, m.self, m.addr)
	if err != nil {
		return "", connectError(err, "Is the agent there running with --listen, and is the port open?", "`vmctl cluster token` on the node with that address prints a token for it.")
	}
	var extra joinExtra
	if err := wire.Decode(extraBytes, &extra); err != nil {
		return "", fmt.Errorf("read the members from %s: %w", addr, err)
	}
	for i := range extra.Members {
		if extra.Members[i].Name != m.self {
			extra.Members[i].Addr = keepReachable(extra.Members[i].Addr, addr)
		}
	}
	return extra.Mode, m.save(clusterRecord{Identity: id.Sealed, Members: extra.Members, Witnesses: extra.Witnesses, Joins: extra.Joins})
}

// keepReachable prefers the address a node was just reached at over one that
// says "any".
func keepReachable(told, used string) string {
	host, _, err := net.SplitHostPort(told)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return used
	}
	return told
}

// connectError gives a failed connection the code users see, and says what to do
// about one that nobody answers, or that another than the token's maker does.
func connectError(err error, silent, stranger string) error {
	var refused *wire.Refused
	switch {
	case errors.As(err, &refused):
		return &api.Error{Code: api.ParseCode(refused.Code), Message: err.Error()}
	case errors.Is(err, peer.ErrStranger), errors.Is(err, peer.ErrToken):
		return &api.Error{Code: api.Unsafe, Message: err.Error(), Hint: stranger}
	case errors.Is(err, peer.ErrUnreachable):
		return &api.Error{Code: api.Unreachable, Message: err.Error(), Hint: silent}
	}
	return err
}
