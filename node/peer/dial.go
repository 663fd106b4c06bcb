package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"vmctl/node/wire"
)

// ErrUnreachable says that no connection to the other end could be made.
var ErrUnreachable = errors.New("cannot be reached")

// dialTimeout bounds connecting and shaking hands together. It is short
// against a lease, so that a link that comes back is used while it matters.
const dialTimeout = 1500 * time.Millisecond

// Remote is another end: a node by name, or a witness by fingerprint.
type Remote struct {
	Name        string
	Addr        string
	Fingerprint []byte // set for a witness: its certificate is pinned
}

// Dial connects to a remote for one purpose; guest is its subject, if any.
func (id *Identity) Dial(ctx context.Context, to Remote, purpose, guest string, opts wire.Options) (*wire.Conn, error) {
	check := func(chain []*x509.Certificate) error { return verifyMember(id.authority, chain, to.Name) }
	if len(to.Fingerprint) > 0 {
		check = pinned(to.Fingerprint)
	}
	raw, err := dialTLS(ctx, to.Addr, &id.pair, check, dialTimeout)
	if err != nil {
		return nil, err
	}
	hello := wire.Hello{Cluster: id.Cluster, Node: id.Node, Purpose: purpose, Guest: guest}
	return greet(raw, hello, opts, dialTimeout)
}

func greet(raw net.Conn, hello wire.Hello, opts wire.Options, bound time.Duration) (*wire.Conn, error) {
	conn := wire.NewConn(raw, wire.Options{MaxFrame: opts.MaxFrame, Buffer: opts.Buffer, ReadTimeout: bound, WriteTimeout: bound})
	if _, err := wire.Greet(conn, hello); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetTimeouts(opts.ReadTimeout, opts.WriteTimeout)
	return conn, nil
}

// dialTLS makes the mutual TLS connection; check decides on the server's
// certificates. TLS 1.3 proves that the server holds the key.
func dialTLS(ctx context.Context, addr string, pair *tls.Certificate, check func([]*x509.Certificate) error, bound time.Duration) (net.Conn, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection below decides, without names or clocks
		VerifyConnection:   func(s tls.ConnectionState) error { return check(s.PeerCertificates) },
	}
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	dialer := &net.Dialer{KeepAlive: 5 * time.Second}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	var conn *tls.Conn
	if err == nil {
		conn = tls.Client(wire.Gather(raw), config)
		if err = conn.HandshakeContext(ctx); err != nil {
			raw.Close()
		}
	}
	if err != nil {
		if errors.Is(err, ErrStranger) {
			return nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		return nil, fmt.Errorf("connect to %s: %w (%w)", addr, ErrUnreachable, err)
	}
	return conn, nil
}

// pinned accepts exactly the certificate with the fingerprint, or one that it
// signed (a cluster's authority is pinned by a join token).
func pinned(fingerprint []byte) func([]*x509.Certificate) error {
	return func(chain []*x509.Certificate) error {
		for i, cert := range chain {
			if !bytes.Equal(Fingerprint(cert.Raw), fingerprint) {
				continue
			}
			if i == 0 {
				return nil
			}
			return verifyMember(cert, chain, "")
		}
		return fmt.Errorf("its certificate is not the one the token or pairing names: %w", ErrStranger)
	}
}
