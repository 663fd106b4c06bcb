package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"vmctl/node/api"
	"vmctl/node/wire"
)

// purposeAPI names the connections on which one agent passes requests of the
// API to the other.
const purposeAPI = "api"

// ownerBound is how long a request waits for word of whose guest it is about.
const ownerBound = 2 * time.Second

// Route implements api.Router: a guest is its owner's business.
func (n *Node) Route(name string) (http.RoundTripper, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return nil, nil // answered here: not found
	}
	// A guest's record may come a moment before the heartbeat that says whose it is.
	wait, cancel := context.WithTimeout(context.Background(), ownerBound)
	defer cancel()
	owner := ""
	_ = g.await(wait, func() bool { owner = string(g.owner); return owner != "" })
	if owner == n.config.Name || owner == "" {
		return nil, nil
	}
	if !n.peerHeard() {
		return nil, api.Errorf(api.Unreachable, "%s belongs to node %s, which does not answer", name, owner).
			WithHint("See `vmctl ha why %s`.", name)
	}
	return n.toPeer(), nil
}

// toPeer is an HTTP transport to the peer's agent.
func (n *Node) toPeer() http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := n.members.dial(ctx, purposeAPI, "", wire.Options{})
			if err != nil {
				return nil, err
			}
			return conn.Raw(), nil
		},
	}
}

// serveAPI answers the peer's requests on one connection.
func (n *Node) serveAPI(ctx context.Context, conn *wire.Conn, _ wire.Hello) {
	raw := conn.Raw()
	one := &oneConn{conn: raw, done: make(chan struct{}), addr: raw.LocalAddr()}
	server := &http.Server{
		Handler:           n.backend().Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				one.Close()
			}
		},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(one); err != nil && !errors.Is(err, net.ErrClosed) {
		n.log.Debug("request of the peer ended", "error", err)
	}
	_ = server.Close()
}

// oneConn is a listener with one connection. A hijacked one (a console) is
// waited for too: its Close ends the listener.
type oneConn struct {
	conn net.Conn
	addr net.Addr
	once sync.Once
	shut sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	var conn net.Conn
	l.once.Do(func() { conn = &closing{Conn: l.conn, closed: l.Close} })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.shut.Do(func() { close(l.done) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }

type closing struct {
	net.Conn
	closed func() error
}

func (c *closing) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// peerClient calls the peer's agent.
func (n *Node) peerClient() *api.Client {
	other, _ := n.members.peer()
	return api.NewRemoteClient(other.Name, n.toPeer())
}
