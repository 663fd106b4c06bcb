package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"vmctl/node/wire"
	"vmctl/node/wire/record"
)

// handshakeTimeout bounds TLS and hello of a connection that comes in;
// maxHandshakes how many may be at it at once, maxPerHost how many of one
// address, so that a stranger can neither use up the agent nor keep the peer out.
const (
	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 64
	maxPerHost       = 8
)

// Handler serves one connection and returns when it is done with it. The
// connection is closed afterwards, and when ctx ends.
type Handler func(ctx context.Context, conn *wire.Conn, hello wire.Hello)

// Gate decides about connections that come in.
type Gate interface {
	// Certificate is what this end shows, or an error while it has none.
	Certificate() (*tls.Certificate, error)
	// Admit takes or refuses a connection; chain is what the other end
	// proved to hold, empty if it showed nothing.
	Admit(hello wire.Hello, chain []*x509.Certificate) error
}

// Server accepts connections and hands each to the handler of its purpose.
type Server struct {
	Self     string // name told to the other end
	Gate     Gate
	Handlers map[string]Handler
	Options  wire.Options // of connections after the handshake
	Lean     bool         // connections take little memory, and are slow for bulk: see package record
	Log      *slog.Logger
}

// Serve accepts until ctx ends, then closes every connection and waits for
// every handler.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { listener.Close() })
	doors := &doors{inside: map[string]int{}}
	for {
		raw, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var temporary net.Error
			if errors.As(err, &temporary) && !errors.Is(err, net.ErrClosed) {
				s.Log.Warn("accept failed, trying on", "error", err)
				select {
				case <-time.After(100 * time.Millisecond):
					continue
				case <-ctx.Done():
					return nil
				}
			}
			return fmt.Errorf("accept connections on %s: %w", listener.Addr(), err)
		}
		leave, ok := doors.enter(raw.RemoteAddr())
		if !ok {
			raw.Close()
			continue
		}
		handlers.Go(func() { s.serve(ctx, raw, leave) })
	}
}

func (s *Server) serve(ctx context.Context, raw net.Conn, shaken func()) {
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	conn, hello, err := s.shakeHands(ctx, raw)
	shaken()
	if err != nil {
		s.Log.Info("connection refused", "from", raw.RemoteAddr().String(), "node", hello.Node, "purpose", hello.Purpose, "error", err)
		return
	}
	s.Handlers[hello.Purpose](ctx, conn, hello)
}

func (s *Server) shakeHands(ctx context.Context, raw net.Conn) (*wire.Conn, wire.Hello, error) {
	pair, err := s.Gate.Certificate()
	if err != nil {
		return nil, wire.Hello{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure, state, err := s.secure(ctx, raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*pair},
		ClientAuth:             tls.RequestClientCert, // Admit verifies it, without a clock
		SessionTicketsDisabled: true,
	})
	if err != nil {
		return nil, wire.Hello{}, err
	}
	conn := wire.NewConn(secure, wire.Options{
		MaxFrame: s.Options.MaxFrame, Buffer: s.Options.Buffer, ReadTimeout: handshakeTimeout, WriteTimeout: handshakeTimeout,
	})
	chain := state.PeerCertificates
	hello, err := wire.Accept(conn, s.Self, func(h wire.Hello) error {
		if s.Handlers[h.Purpose] == nil {
			return fmt.Errorf("no connections for %q are served here", h.Purpose)
		}
		return s.Gate.Admit(h, chain)
	})
	if err != nil {
		return nil, hello, err
	}
	conn.SetTimeouts(s.Options.ReadTimeout, s.Options.WriteTimeout)
	return conn, hello, nil
}

// secure makes the TLS handshake.
func (s *Server) secure(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	if s.Lean {
		return lean(ctx, raw, config)
	}
	secure := tls.Server(wire.Gather(raw), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, tls.ConnectionState{}, fmt.Errorf("TLS: %w", err)
	}
	return secure, secure.ConnectionState(), nil
}

func lean(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	conn, state, err := record.Server(ctx, raw, config)
	if err != nil {
		return nil, state, err
	}
	return conn, state, nil
}
