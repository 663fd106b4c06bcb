package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"vmctl/node/wire"
)

// ErrNoCluster says that this node is in no cluster yet.
var ErrNoCluster = errors.New("this node is in no cluster; run `vmctl cluster init` or `vmctl cluster join`")

// NodeGate admits members of the node's cluster, and strangers only to join.
type NodeGate struct {
	Identity func() *Identity        // nil while there is none
	Member   func(node string) error // nil if the node is a member now
}

// Certificate is the node's own.
func (g NodeGate) Certificate() (*tls.Certificate, error) {
	id := g.Identity()
	if id == nil {
		return nil, ErrNoCluster
	}
	return &id.pair, nil
}

// Admit implements Gate.
func (g NodeGate) Admit(hello wire.Hello, chain []*x509.Certificate) error {
	if hello.Purpose == PurposeJoin {
		return nil // its secret is checked by the handler
	}
	id := g.Identity()
	if id == nil {
		return ErrNoCluster
	}
	if hello.Cluster != id.Cluster {
		return fmt.Errorf("node %q is of another cluster than %s: %w", hello.Node, id.ClusterName, ErrStranger)
	}
	if err := verifyMember(id.authority, chain, hello.Node); err != nil {
		return err
	}
	return g.Member(hello.Node)
}

// WitnessGate admits nodes of enrolled clusters, and strangers only to enrol.
type WitnessGate struct {
	Pair      tls.Certificate
	Authority func(cluster string) (caDER []byte, err error)
}

// Certificate is the witness's own, which clusters pin.
func (g WitnessGate) Certificate() (*tls.Certificate, error) { return &g.Pair, nil }

// Admit implements Gate.
func (g WitnessGate) Admit(hello wire.Hello, chain []*x509.Certificate) error {
	if hello.Purpose == PurposeEnrol {
		return nil
	}
	der, err := g.Authority(hello.Cluster)
	if err != nil {
		return err
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read the certificate of cluster %s: %w", hello.Cluster, err)
	}
	return verifyMember(authority, chain, hello.Node)
}

// WitnessID derives a witness's voter id from its certificate's fingerprint: a
// new state directory gives a new id.
func WitnessID(fingerprint []byte) string {
	return "witness-" + hex.EncodeToString(fingerprint[:6])
}

// NewWitnessPair makes the self-signed certificate and key of a witness.
func NewWitnessPair(name string) (certDER, keyDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the witness's key: %w", err)
	}
	template := certificate(name, "vmctl witness")
	if certDER, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		return nil, nil, fmt.Errorf("make the witness's certificate: %w", err)
	}
	keyDER, err = x509.MarshalECPrivateKey(key)
	return certDER, keyDER, err
}

// OpenWitnessPair makes a stored pair usable.
func OpenWitnessPair(certDER, keyDER []byte) (tls.Certificate, error) {
	key, err := x509.ParseECPrivateKey(keyDER)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the witness's key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{certDER}, PrivateKey: key}, nil
}
