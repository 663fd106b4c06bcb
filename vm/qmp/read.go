package qmp

import (
	"errors"
	"fmt"
	"io"
)

// read is the goroutine that owns the receiving side.
func (c *Client) read() {
	for {
		m, err := c.in.next()
		if err == nil {
			err = c.take(m)
		}
		if err != nil {
			c.end(lost(err))
			return
		}
	}
}

// lost words the end of the connection.
func lost(err error) error {
	switch {
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: QEMU has ended or closed its monitor", ErrClosed)
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

func (c *Client) take(m message) error {
	switch {
	case m.isReply():
		return c.takeReply(m)
	case m.Event != "":
		c.publish(Event{Name: m.Event, Data: m.Data, Time: m.Timestamp.time()})
	default:
		c.log.Debug("unknown QMP message ignored")
	}
	return nil
}

// takeReply gives a reply to its caller. An error without an id means that QEMU
// did not understand our bytes: which command it belongs to is not known, so
// nothing on this connection can be trusted any more.
func (c *Client) takeReply(m message) error {
	id := m.id()
	if id == "" && len(m.ID) == 0 {
		if m.Error != nil {
			return fmt.Errorf("%w: QEMU answered without an id: %s", ErrProtocol, m.Error.Desc)
		}
		return fmt.Errorf("%w: a reply without an id", ErrProtocol)
	}
	c.mu.Lock()
	call, known := c.pending[id]
	delete(c.pending, id)
	left := known && call.left
	c.mu.Unlock()
	if !known {
		c.log.Debug("reply to a command of another connection dropped")
		return nil
	}
	if left {
		c.log.Info("late QMP reply dropped", "command", call.command, "failed", m.Error != nil)
	}
	call.reply <- m
	if call.inBand {
		select {
		case <-c.slot:
		default: // QEMU answered what it was not asked; the reader must not wait
		}
	}
	return nil
}
