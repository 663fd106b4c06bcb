package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Device is what an export reads and writes. Methods are called from many
// goroutines at once; the server has checked that ranges are inside Size. A
// method must return once its context of life (the owner's) has ended, else the
// server cannot stop.
type Device interface {
	// Size is the export's length in bytes; it does not change.
	Size() int64
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt stores p at off; p is not used after it returned.
	WriteAt(p []byte, off int64) (int, error)
	// Discard drops or zeroes a range. With zero set, the range must read as
	// zeroes afterwards; without, the content may be anything (TRIM).
	Discard(off, length int64, zero bool) error
	// Flush makes acknowledged writes durable.
	Flush() error
}

// Export is one named Device of a server.
type Export struct {
	Device   Device
	ReadOnly bool
	// Exclusive lets one connection into transmission at a time: a new one ends
	// the one before and waits for its requests.
	Exclusive bool
	// Connected, when set, is called as a connection enters transmission.
	Connected func()
}

// Server serves exports by name. It may serve several listeners.
type Server struct {
	log     *slog.Logger
	exports map[string]*served
}

type served struct {
	Export
	turn sync.Mutex // held by the connection in transmission, if exclusive

	mu      sync.Mutex
	current net.Conn
}

// NewServer makes a server of the given exports.
func NewServer(exports map[string]Export, log *slog.Logger) *Server {
	s := &Server{log: log, exports: make(map[string]*served, len(exports))}
	for name, export := range exports {
		s.exports[name] = &served{Export: export}
	}
	return s
}

// Serve accepts connections until ctx ends, and returns when all of them have
// ended. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept nbd connections on %s: %w", listener.Addr(), err)
		case err != nil:
			// Out of file descriptors, or the client was gone again: the next
			// one may do better.
			s.log.Warn("accept nbd connection", "address", listener.Addr().String(), "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		connections.Go(func() {
			if err := s.ServeConn(ctx, conn); err != nil && ctx.Err() == nil {
				s.log.Info("nbd connection ended", "address", listener.Addr().String(), "error", err)
			}
		})
	}
}

// ServeConn serves one connection until it ends or ctx does, and closes it.
// It returns after the last Device call has returned. A clean goodbye is nil.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	export, err := s.negotiate(conn)
	if err != nil || export == nil {
		return err
	}
	if export.Exclusive {
		export.enter(conn)
		defer export.leave(conn)
	}
	if export.Connected != nil {
		export.Connected()
	}
	return transmit(conn, export)
}

// enter ends the export's connection in transmission and waits for its turn.
// Of several that wait, an older one finds itself closed when its turn comes.
func (e *served) enter(conn net.Conn) {
	e.mu.Lock()
	if e.current != nil {
		e.current.Close()
	}
	e.current = conn
	e.mu.Unlock()
	e.turn.Lock()
}

func (e *served) leave(conn net.Conn) {
	e.mu.Lock()
	if e.current == conn {
		e.current = nil
	}
	e.mu.Unlock()
	e.turn.Unlock()
}
