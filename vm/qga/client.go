package qga

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bound is the longest a call takes whose context allows more. An agent that
// sets the clock also writes it to the guest's RTC, which takes up to a second.
const Bound = 5 * time.Second

var (
	// ErrSilent: nothing answered in time. There is no agent, or the guest stands still.
	ErrSilent = errors.New("the guest agent does not answer")
	// ErrClosed: the client was closed, or the port's other end is gone.
	ErrClosed = errors.New("the connection to the guest agent is closed")
	// ErrProtocol: what answers is not a guest agent.
	ErrProtocol = errors.New("not the words of a guest agent")
)

// Error is the agent's refusal of a command.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Class + ": " + e.Desc }

// Client is a conversation with one agent. Its methods may be called at once;
// they wait for each other.
type Client struct {
	conn net.Conn
	in   *reader

	mu sync.Mutex // held during a command
}

// Dial connects to the port's socket and finds the agent in step. The error is
// ErrSilent if there is none.
func Dial(ctx context.Context, socket string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, Bound)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("reach the guest agent: %w", err)
	}
	c := &Client{conn: conn, in: newReader(conn)}
	if err := c.sync(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("reach the guest agent: %w", err), c.Close())
	}
	return c, nil
}

// Close ends the connection, and with it a command under way.
func (c *Client) Close() error {
	err := c.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// syncByte begins a delimited answer, and clears what the agent may have read
// of an earlier client's unfinished command: it is in no UTF-8 text.
const syncByte = 0xff

// sync brings both ends to the same place of the stream.
func (c *Client) sync(ctx context.Context) error {
	var random [8]byte
	_, _ = rand.Read(random[:])
	// Positive and exact in every JSON reader.
	id := int64(binary.BigEndian.Uint64(random[:]) >> 12)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exchange(ctx, func() error {
		if err := c.send("guest-sync-delimited", map[string]any{"id": id}, syncByte); err != nil {
			return err
		}
		return c.in.skipTo(id)
	})
}

// execute runs one command. reply may be nil.
func (c *Client) execute(ctx context.Context, command string, arguments, reply any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, Bound)
	defer cancel()
	err := c.exchange(ctx, func() error {
		if err := c.send(command, arguments); err != nil {
			return err
		}
		line, err := c.in.line()
		if err != nil {
			return err
		}
		return decodeAnswer(line, reply)
	})
	var refused *Error
	if err != nil && !errors.As(err, &refused) {
		_ = c.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// exchange ends talk when ctx does.
func (c *Client) exchange(ctx context.Context, talk func() error) error {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := talk()
	var refused *Error
	var late net.Error
	switch {
	case err == nil, errors.As(err, &refused), errors.Is(err, ErrProtocol):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.As(err, &late) && late.Timeout():
		return ErrSilent
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

func (c *Client) send(command string, arguments any, first ...byte) error {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	_, err = c.conn.Write(append(append(first, text...), '\n'))
	return err
}
