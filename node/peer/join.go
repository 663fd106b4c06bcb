package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"vmctl/node/wire"
)

// Purposes that this package itself speaks.
const (
	PurposeJoin   = "join"
	PurposeEnrol  = "enrol"
	kindRequest   = wire.Kind(16)
	kindReply     = wire.Kind(17)
	kindRejection = wire.Kind(18)
)

// JoinRequest asks to be taken into a cluster. PublicKey is PKIX-encoded.
type JoinRequest struct {
	Secret    []byte `msgpack:"secret"`
	Node      string `msgpack:"node"`
	Addr      string `msgpack:"addr"`
	PublicKey []byte `msgpack:"public_key"`
}

// JoinReply makes the asking node a member. Sealed has everything but its key.
// Extra is the business of the caller (members, mode), msgpack-encoded.
type JoinReply struct {
	Sealed Sealed `msgpack:"sealed"`
	Extra  []byte `msgpack:"extra"`
}

// Join asks the node at addr to take this node in and returns the identity and
// the extra answer.
func Join(ctx context.Context, addr string, token Token, node, ownAddr string) (*Identity, []byte, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.ParseECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("read the new key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the new key: %w", err)
	}
	request := JoinRequest{Secret: token.Secret, Node: node, Addr: ownAddr, PublicKey: public}
	var reply JoinReply
	if err := ask(ctx, addr, nil, token.Fingerprint, wire.Hello{Node: node, Purpose: PurposeJoin}, request, &reply); err != nil {
		return nil, nil, fmt.Errorf("join through %s: %w", addr, err)
	}
	reply.Sealed.Node, reply.Sealed.Key = node, key
	id, err := Open(reply.Sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("join through %s: %w", addr, err)
	}
	return id, reply.Extra, nil
}

// Admit makes the reply to a request that the caller found good.
func (id *Identity) Admit(request JoinRequest, extra []byte) (JoinReply, error) {
	key, err := x509.ParsePKIXPublicKey(request.PublicKey)
	if err != nil {
		return JoinReply{}, fmt.Errorf("read the joining node's key: %w", err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return JoinReply{}, errors.New("read the joining node's key: not an ECDSA key")
	}
	sealed := Sealed{Cluster: id.Cluster, ClusterName: id.ClusterName, CACert: id.CACert, CAKey: id.CAKey}
	if sealed.Cert, err = id.issue(request.Node, public); err != nil {
		return JoinReply{}, err
	}
	return JoinReply{Sealed: sealed, Extra: extra}, nil
}

// EnrolRequest makes a witness serve a cluster.
type EnrolRequest struct {
	Secret      []byte `msgpack:"secret"`
	Cluster     string `msgpack:"cluster"`
	ClusterName string `msgpack:"cluster_name"`
	CACert      []byte `msgpack:"ca_cert"`
}

// EnrolReply names the witness.
type EnrolReply struct {
	Witness string `msgpack:"witness"`
}

// Enrol asks the witness at addr to serve this cluster.
func (id *Identity) Enrol(ctx context.Context, addr string, token Token) (EnrolReply, error) {
	request := EnrolRequest{Secret: token.Secret, Cluster: id.Cluster, ClusterName: id.ClusterName, CACert: id.CACert}
	var reply EnrolReply
	hello := wire.Hello{Cluster: id.Cluster, Node: id.Node, Purpose: PurposeEnrol}
	if err := ask(ctx, addr, &id.pair, token.Fingerprint, hello, request, &reply); err != nil {
		return reply, fmt.Errorf("enrol with the witness at %s: %w", addr, err)
	}
	return reply, nil
}

// ask makes one request on a connection of its own to an end known only by the
// fingerprint in a token. No lease depends on it, and a person waits: it has as
// long as the other end gives a handshake, for the links of ships.
func ask(ctx context.Context, addr string, pair *tls.Certificate, fingerprint []byte, hello wire.Hello, request, reply any) error {
	raw, err := dialTLS(ctx, addr, pair, pinned(fingerprint), handshakeTimeout)
	if err != nil {
		return err
	}
	conn, err := greet(raw, hello, wire.Options{ReadTimeout: handshakeTimeout, WriteTimeout: handshakeTimeout}, handshakeTimeout)
	if err != nil {
		raw.Close()
		return err
	}
	defer conn.Close()
	return Ask(conn, request, reply)
}

// Ask sends one request and waits for its reply. A refusal comes back as
// *wire.Refused.
func Ask(conn *wire.Conn, request, reply any) error {
	if err := conn.Send(kindRequest, request); err != nil {
		return err
	}
	kind, body, err := conn.Receive()
	if err != nil {
		return err
	}
	if kind == kindRejection {
		refused := new(wire.Refused)
		if err := wire.Decode(body, refused); err != nil {
			return err
		}
		return refused
	}
	if kind != kindReply {
		return fmt.Errorf("unexpected frame of kind %d: %w", kind, wire.ErrMalformed)
	}
	return wire.Decode(body, reply)
}

// Answer serves one request: it decodes into request, calls decide, and sends
// the reply or the refusal.
func Answer(conn *wire.Conn, request any, decide func() (any, error)) error {
	kind, body, err := conn.Receive()
	if err != nil {
		return err
	}
	if kind != kindRequest {
		return fmt.Errorf("frame of kind %d instead of a request: %w", kind, wire.ErrMalformed)
	}
	if err := wire.Decode(body, request); err != nil {
		return err
	}
	reply, err := decide()
	if err == nil {
		return conn.Send(kindReply, reply)
	}
	refused := new(wire.Refused)
	if !errors.As(err, &refused) {
		refused = &wire.Refused{Code: "refused", Message: err.Error()}
	}
	return errors.Join(err, conn.Send(kindRejection, refused))
}
