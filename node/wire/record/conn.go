package record

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
)

// Conn is a connection whose records this package makes. Read and Write are
// for one goroutine each.
type Conn struct {
	net.Conn
	in, out Keys
	data    []byte // opened and not yet read
}

// Server makes the handshake of a connection that came in, with TLS 1.3, and
// takes its records over.
func Server(ctx context.Context, raw net.Conn, config *tls.Config) (*Conn, tls.ConnectionState, error) {
	var log secrets
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true // a ticket would be the first record
	config.KeyLogWriter = &log           // stays in this function
	secure := tls.Server(&recordwise{Conn: raw}, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, tls.ConnectionState{}, fmt.Errorf("TLS: %w", err)
	}
	state := secure.ConnectionState()
	c := &Conn{Conn: raw}
	var err error
	if c.in, err = log.keys(state.CipherSuite, "CLIENT_TRAFFIC_SECRET_0"); err == nil {
		c.out, err = log.keys(state.CipherSuite, "SERVER_TRAFFIC_SECRET_0")
	}
	if err != nil {
		return nil, state, fmt.Errorf("TLS: %w", err)
	}
	return c, state, nil
}

// secrets takes crypto/tls's key log: its one way to hand out the secrets of a
// handshake on a stream.
type secrets struct{ bytes.Buffer }

func (s *secrets) keys(suite uint16, label string) (Keys, error) {
	for line := range bytes.Lines(s.Bytes()) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != label {
			continue
		}
		secret, err := hex.DecodeString(string(fields[2]))
		if err != nil {
			return Keys{}, errors.New("the handshake gave a damaged secret")
		}
		return newKeys(suite, secret)
	}
	return Keys{}, errors.New("the handshake gave no secrets")
}

// recordwise ends every Read at the end of a record at the latest, so that
// crypto/tls takes nothing that comes after its handshake.
type recordwise struct {
	net.Conn
	head []byte
	left int // of the record's body
}

func (r *recordwise) Read(p []byte) (int, error) {
	if r.left > 0 {
		n, err := r.Conn.Read(p[:min(len(p), r.left)])
		r.left -= n
		return n, err
	}
	n, err := r.Conn.Read(p[:min(len(p), HeaderSize-len(r.head))])
	r.head = append(r.head, p[:n]...)
	if len(r.head) == HeaderSize {
		r.left = int(r.head[3])<<8 | int(r.head[4])
		r.head = r.head[:0]
	}
	return n, err
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		record, err := c.record()
		if err == nil {
			c.data, err = c.in.Open(record)
		}
		if err == nil && len(c.data) == 0 {
			err = fmt.Errorf("an empty record: %w", ErrRecord) // none of ours; a flood of them is read by nobody
		}
		if errors.Is(err, ErrClosed) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

func (c *Conn) record() ([]byte, error) {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return nil, err
	}
	n, err := Length(head[:])
	if err != nil {
		return nil, err
	}
	record := make([]byte, n)
	copy(record, head[:])
	_, err = io.ReadFull(c.Conn, record[HeaderSize:])
	return record, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	sealed, err := c.out.Seal(nil, p)
	if err == nil {
		_, err = c.Conn.Write(sealed)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Release gives up the connection to whoever goes on with its keys on its
// socket: from now on it has none itself, for a number that both used would
// give the cipher away. What was opened and not read is lost: then it fails.
func (c *Conn) Release() (raw net.Conn, in, out Keys, err error) {
	if len(c.data) > 0 {
		return nil, Keys{}, Keys{}, fmt.Errorf("%d bytes came before they were asked for: %w", len(c.data), ErrRecord)
	}
	in, out = c.in, c.out
	c.in, c.out = Keys{}, Keys{}
	return c.Conn, in, out, nil
}
