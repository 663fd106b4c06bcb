package watchdog

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// exchangeBound bounds one request to a keeper.
const exchangeBound = 2 * time.Second

// Client is an agent's connection to a keeper. One goroutine uses it.
type Client struct{ conn *net.UnixConn }

// Dial connects to the keeper at socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper of the watchdog: %w", err)
	}
	return &Client{conn.(*net.UnixConn)}, nil
}

// Watch has the guard with the configuration file looked after. State.Refused says
// why it is not.
func (c *Client) Watch(ctx context.Context, config string) (State, error) {
	return c.exchange(ctx, request{Watch: config})
}

// State asks how the keeper is.
func (c *Client) State(ctx context.Context) (State, error) { return c.exchange(ctx, request{}) }

func (c *Client) exchange(ctx context.Context, r request) (s State, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask the keeper of the watchdog: %w", err)
		}
	}()
	until := time.Now().Add(exchangeBound)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := c.conn.SetDeadline(until); err != nil {
		return s, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })()
	packet, err := json.Marshal(r)
	if err != nil {
		return s, err
	}
	if _, err := c.conn.Write(packet); err != nil {
		return s, err
	}
	buf := make([]byte, maxPacket)
	n, err := c.conn.Read(buf)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(buf[:n], &s)
}

// Close lets go of the keeper. It ends by itself once it looks after no guest.
func (c *Client) Close() error { return c.conn.Close() }
