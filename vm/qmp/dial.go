package qmp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"
)

// maxStray is how many messages meant for an earlier client are skipped while
// waiting for the greeting and for the answer to our first command.
const maxStray = 1000

// Dial connects to the monitor at a unix socket and agrees on capabilities.
// ctx bounds only the dialling. QEMU serves one client per socket: while there is
// another, Dial waits for its greeting until ctx ends.
//
// A socket that does not exist or has no listener is the system's error
// (os.ErrNotExist, syscall.ECONNREFUSED); one that is not QMP is ErrNotQMP.
func Dial(ctx context.Context, socketPath string, log *slog.Logger) (*Client, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socketPath)
	if err != nil {
		return nil, fmt.Errorf("qmp: connect to QEMU's monitor: %w", err)
	}
	c := newClient(conn.(*net.UnixConn), log)

	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = c.handshake()
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, handshakeError(socketPath, err)
	}
	c.start()
	return c, nil
}

func handshakeError(path string, err error) error {
	switch {
	case errors.Is(err, ErrNotQMP), errors.Is(err, ErrClosed):
	case errors.Is(err, ErrProtocol):
		err = fmt.Errorf("%w: %w", ErrNotQMP, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w before the greeting was over", ErrClosed)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no greeting in time; another client may be connected, or QEMU hangs: %w",
			context.DeadlineExceeded)
	}
	return fmt.Errorf("qmp: monitor %s: %w", path, err)
}

// handshake reads the greeting and ends QEMU's negotiation mode.
func (c *Client) handshake() error {
	hello, err := c.expect(func(m *message) bool { return m.QMP != nil })
	if err != nil {
		return err
	}
	c.version = hello.QMP.Version
	c.oob = hello.QMP.offers("oob")

	id := c.prefix + "0"
	request := `{"execute":"qmp_capabilities","id":"` + id + `"}`
	if c.oob {
		request = `{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":"` + id + `"}`
	}
	if _, err := io.WriteString(c.conn, request+"\n"); err != nil {
		return fmt.Errorf("%w while greeting: %w", ErrClosed, err)
	}
	reply, err := c.expect(func(m *message) bool { return m.isReply() && m.id() == id })
	if err != nil {
		return err
	}
	if reply.Error != nil {
		return &Error{"qmp_capabilities", reply.Error.Class, reply.Error.Desc}
	}
	return nil
}

// expect reads on to the message wanted. In between there may be what an earlier
// client left: the reply to its last command, events.
func (c *Client) expect(wanted func(*message) bool) (message, error) {
	for range maxStray {
		m, err := c.in.next()
		if err != nil {
			return m, err
		}
		if wanted(&m) {
			return m, nil
		}
		if !m.isReply() && m.Event == "" {
			break
		}
	}
	return message{}, ErrNotQMP
}

// newPrefix makes the ids of a connection differ from those of every other one:
// QEMU gives the reply to a command of a client that has left to the next one.
func newPrefix() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return fmt.Sprintf("%x-", b)
}
