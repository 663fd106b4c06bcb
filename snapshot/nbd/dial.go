package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
)

// negotiate asks for structured replies and base:allocation, both of which the
// server may lack, and enters transmission on the export.
func (c *Client) negotiate(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return fmt.Errorf("nbd handshake: %w", err)
	}
	if binary.BigEndian.Uint64(hello[:]) != magicInit || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return fmt.Errorf("nbd handshake: not a newstyle nbd server: %w", ErrProtocol)
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("nbd handshake: server flags %#x: %w", flags, ErrProtocol)
	}
	answer := uint32(flagFixedNewstyle) | uint32(flags&flagNoZeroes)
	if _, err := c.conn.Write(binary.BigEndian.AppendUint32(nil, answer)); err != nil {
		return fmt.Errorf("nbd handshake: %w", err)
	}
	kind, _, err := c.option(optStructured, nil, nil)
	if err != nil {
		return err
	}
	if c.structured = kind == repAck; c.structured {
		if err := c.askAllocation(export); err != nil {
			return err
		}
	}
	return c.open(export)
}

// askAllocation selects the base:allocation context, if the server has it.
func (c *Client) askAllocation(export string) error {
	const query = "base:allocation"
	body := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	body = append(body, export...)
	body = binary.BigEndian.AppendUint32(body, 1)
	body = binary.BigEndian.AppendUint32(body, uint32(len(query)))
	body = append(body, query...)
	_, _, err := c.option(optSetMeta, body, func(kind uint32, reply []byte) error {
		if kind == repMeta && len(reply) >= 4 && string(reply[4:]) == query {
			c.meta, c.hasMeta = binary.BigEndian.Uint32(reply), true
		}
		return nil
	})
	return err
}

func (c *Client) open(export string) error {
	known := false
	body := infoRequest{name: export, infos: []uint16{infoBlockSize}}.append(nil)
	kind, text, err := c.option(optGo, body, func(kind uint32, reply []byte) error {
		if kind == repInfo && len(reply) >= 12 && binary.BigEndian.Uint16(reply) == infoExport {
			c.size = int64(binary.BigEndian.Uint64(reply[2:]))
			c.flags = binary.BigEndian.Uint16(reply[10:])
			known = true
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case kind == repErrUnknown:
		return fmt.Errorf("%w: %s", ErrNoExport, text)
	case kind != repAck:
		return fmt.Errorf("server refused the export (%#x): %s", kind, text)
	case !known || c.size < 0:
		return fmt.Errorf("nbd handshake: no export size: %w", ErrProtocol)
	}
	return nil
}

// maxOptReplies bounds the answers to one option.
const maxOptReplies = 1024

// option sends one option and reads its answers up to the ack or an error
// answer, which it returns; those between go to each.
func (c *Client) option(option uint32, body []byte, each func(kind uint32, reply []byte) error) (uint32, string, error) {
	raw := binary.BigEndian.AppendUint64(nil, magicOption)
	raw = binary.BigEndian.AppendUint32(raw, option)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(body)))
	if _, err := c.conn.Write(append(raw, body...)); err != nil {
		return 0, "", fmt.Errorf("nbd handshake: option %d: %w", option, err)
	}
	for range maxOptReplies {
		kind, reply, err := readReply(c.conn, option)
		if err != nil {
			return 0, "", err
		}
		if kind == repAck || kind&repErrBit != 0 {
			return kind, string(reply), nil
		}
		if each == nil {
			return 0, "", fmt.Errorf("nbd handshake: answer %#x to option %d: %w", kind, option, ErrProtocol)
		}
		if err := each(kind, reply); err != nil {
			return 0, "", err
		}
	}
	return 0, "", fmt.Errorf("nbd handshake: endless answers to option %d: %w", option, ErrProtocol)
}

func readReply(from io.Reader, option uint32) (kind uint32, body []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, nil, fmt.Errorf("nbd handshake: answer to option %d: %w", option, err)
	}
	length := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicOptReply || binary.BigEndian.Uint32(head[8:]) != option || length > maxOption {
		return 0, nil, fmt.Errorf("nbd handshake: answer to option %d: %w", option, ErrProtocol)
	}
	body = make([]byte, length)
	if _, err := io.ReadFull(from, body); err != nil {
		return 0, nil, fmt.Errorf("nbd handshake: answer to option %d: %w", option, err)
	}
	return binary.BigEndian.Uint32(head[12:]), body, nil
}
