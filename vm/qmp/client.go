package qmp

import (
	"fmt"
	"log/slog"
	"net"
	"sync"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// Client is one connection to a QEMU monitor. All methods may be called from any
// goroutine. It does not reconnect: after ErrClosed, Close it and Dial again.
type Client struct {
	conn    *net.UnixConn
	in      *decoder // the reader's
	log     *slog.Logger
	prefix  string // of ids
	version goqemu.Version
	oob     bool

	slot chan struct{} // full while QEMU has an in-band command of ours
	out  chan packet   // to the writer
	done chan struct{} // closed with err
	quit chan struct{} // closed by Close

	mu          sync.Mutex
	err         error // why the connection ended
	lastID      uint64
	pending     map[string]*call
	subscribers map[*subscriber]struct{}

	goroutines sync.WaitGroup
	closeOnce  sync.Once
}

// call is a command that was, or is about to be, sent.
type call struct {
	id      string
	command string
	inBand  bool
	reply   chan message // room for one: the reader never waits
	left    bool         // nobody waits any more; guarded by Client.mu
}

func newClient(conn *net.UnixConn, log *slog.Logger) *Client {
	return &Client{
		conn:        conn,
		in:          newDecoder(conn, maxMessage),
		log:         log,
		prefix:      newPrefix(),
		slot:        make(chan struct{}, 1),
		out:         make(chan packet),
		done:        make(chan struct{}),
		quit:        make(chan struct{}),
		pending:     make(map[string]*call),
		subscribers: make(map[*subscriber]struct{}),
	}
}

func (c *Client) start() {
	c.goroutines.Go(c.read)
	c.goroutines.Go(c.write)
}

// Version is QEMU's version, from its greeting.
func (c *Client) Version() goqemu.Version { return c.version }

// OOB tells whether ExecuteOOB works on this connection.
func (c *Client) OOB() bool { return c.oob }

// Done is closed when the connection is lost or closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil while the connection stands, then why it ended (an ErrClosed).
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for the Client's goroutines. QEMU goes on.
// Events not yet read are gone. Calls still waiting get ErrClosed.
func (c *Client) Close() error {
	c.closeOnce.Do(func() { close(c.quit) })
	c.end(fmt.Errorf("%w by this side", ErrClosed))
	c.goroutines.Wait()
	return nil
}

// spawn starts a goroutine that Close waits for.
func (c *Client) spawn(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.goroutines.Go(f)
	}
	return c.err
}

// end records why the connection is over, once, and wakes everyone.
func (c *Client) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = why
	close(c.done)
	_ = c.conn.Close()
	for s := range c.subscribers {
		s.finish()
	}
}
