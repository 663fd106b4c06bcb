package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// exchangeBound bounds one request to a keeper.
const exchangeBound = 2 * time.Second

// ErrGone: the connection to the keeper is over.
var ErrGone = errors.New("the keeper of the watchdog is gone")

// Client is an agent's connection to a keeper. One goroutine at a time uses it.
type Client struct {
	conn    *net.UnixConn
	answers chan State
	gone    chan struct{}
}

// Dial connects to the keeper at socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper of the watchdog: %w", err)
	}
	c := &Client{conn.(*net.UnixConn), make(chan State, 1), make(chan struct{})}
	go c.read() // until Close, or the keeper's end
	return c, nil
}

func (c *Client) read() {
	defer close(c.gone)
	buf := make([]byte, maxPacket)
	for {
		n, err := c.conn.Read(buf)
		var s State
		if err != nil || n == 0 || json.Unmarshal(buf[:n], &s) != nil {
			return
		}
		select {
		case c.answers <- s:
		default: // nobody waits for it any more
		}
	}
}

// Gone is closed when the keeper has ended, or Close was called.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Watch has the guard with the configuration file looked after. State.Refused says
// why it is not.
func (c *Client) Watch(ctx context.Context, config string) (State, error) {
	return c.exchange(ctx, request{Watch: config})
}

// State asks how the keeper is.
func (c *Client) State(ctx context.Context) (State, error) { return c.exchange(ctx, request{}) }

// exchange closes the connection if there is no answer: a late one would be taken
// for that of the next request.
func (c *Client) exchange(ctx context.Context, r request) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeBound)
	defer cancel()
	packet, err := json.Marshal(r)
	if err == nil {
		_, err = c.conn.Write(packet)
	}
	if err != nil {
		return State{}, errors.Join(fmt.Errorf("%w: %w", ErrGone, err), c.Close())
	}
	select {
	case s := <-c.answers:
		return s, nil
	case <-c.gone:
		return State{}, ErrGone
	case <-ctx.Done():
		_ = c.Close()
		return State{}, fmt.Errorf("the keeper of the watchdog does not answer: %w", ctx.Err())
	}
}

// Close lets go of the keeper, and waits for the reader. The keeper ends by itself
// once it looks after no guest.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.gone
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
