package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Certificates are valid over a span no wall clock leaves by accident.
var (
	validFrom  = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC)
)

// Sealed is an identity as it is stored and as it travels to a joining node.
// Both nodes hold the authority's key, so that either can take in a new peer
// when the other is gone for good.
type Sealed struct {
	Cluster     string `msgpack:"cluster"` // id, random
	ClusterName string `msgpack:"cluster_name"`
	Node        string `msgpack:"node"`
	CACert      []byte `msgpack:"ca_cert"`
	CAKey       []byte `msgpack:"ca_key"`
	Cert        []byte `msgpack:"cert"`
	Key         []byte `msgpack:"key"`
}

// Identity is what a node shows and trusts. It does not change once made.
type Identity struct {
	Sealed
	authority    *x509.Certificate
	authorityKey *ecdsa.PrivateKey
	pair         tls.Certificate
}

// Found makes a new cluster: its authority, and the identity of its first node.
func Found(cluster, clusterName, node string) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's key: %w", err)
	}
	template := certificate("vmctl cluster "+clusterName, cluster)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's key: %w", err)
	}
	sealed := Sealed{Cluster: cluster, ClusterName: clusterName, CACert: der, CAKey: keyDER}
	nodeKey, err := NewKey()
	if err != nil {
		return nil, err
	}
	return sealed.complete(node, nodeKey)
}

// complete signs a certificate for node and opens the result.
func (s Sealed) complete(node string, key []byte) (*Identity, error) {
	private, err := x509.ParseECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	s.Node, s.Key = node, key
	if s.Cert, err = s.issue(node, &private.PublicKey); err != nil {
		return nil, err
	}
	return Open(s)
}

// Open makes a stored identity usable.
func Open(s Sealed) (*Identity, error) {
	id := &Identity{Sealed: s}
	var err error
	if id.authority, err = x509.ParseCertificate(s.CACert); err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	if id.authorityKey, err = x509.ParseECPrivateKey(s.CAKey); err != nil {
		return nil, fmt.Errorf("read the cluster's key: %w", err)
	}
	key, err := x509.ParseECPrivateKey(s.Key)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	id.pair = tls.Certificate{Certificate: [][]byte{s.Cert, s.CACert}, PrivateKey: key}
	return id, nil
}

// NewKey makes a private key for a node, encoded.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a node's key: %w", err)
	}
	return x509.MarshalECPrivateKey(key)
}

// issue signs a certificate for a node of this cluster.
func (s Sealed) issue(node string, public *ecdsa.PublicKey) ([]byte, error) {
	authority, err := x509.ParseCertificate(s.CACert)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	key, err := x509.ParseECPrivateKey(s.CAKey)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's key: %w", err)
	}
	template := certificate(node, s.Cluster)
	template.DNSNames = []string{node}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of node %s: %w", node, err)
	}
	return der, nil
}

func certificate(name, cluster string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		serial = big.NewInt(time.Now().UnixNano())
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{cluster}},
		NotBefore:    validFrom,
		NotAfter:     validUntil,
	}
}

// ErrStranger says that the other end showed no certificate of this cluster.
var ErrStranger = errors.New("not a member of this cluster")

// verifyMember checks that chain is a certificate that authority signed for the
// named node. The clock plays no part.
func verifyMember(authority *x509.Certificate, chain []*x509.Certificate, node string) error {
	if len(chain) == 0 {
		return fmt.Errorf("node %q showed no certificate: %w", node, ErrStranger)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: validFrom.Add(time.Hour),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("certificate of %q (%s) was not signed by this cluster: %w", node, chain[0].Subject.CommonName, ErrStranger)
	}
	if node != "" && chain[0].Subject.CommonName != node {
		return fmt.Errorf("certificate is for node %q, not %q: %w", chain[0].Subject.CommonName, node, ErrStranger)
	}
	return nil
}

// Fingerprint is the SHA-256 of a certificate.
func Fingerprint(der []byte) []byte {
	sum := sha256.Sum256(der)
	return sum[:]
}
