package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sort"
	"time"
)

// negotiationTime bounds the handshake of a connection.
const negotiationTime = 10 * time.Second

// maxOptions bounds how long a client may go on asking before it starts.
const maxOptions = 64

// negotiate does the handshake. A nil export without error is a client that
// said goodbye.
func (s *Server) negotiate(conn net.Conn) (*served, error) {
	if err := conn.SetDeadline(time.Now().Add(negotiationTime)); err != nil {
		return nil, fmt.Errorf("nbd handshake: %w", err)
	}
	hello := binary.BigEndian.AppendUint64(nil, magicInit)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := conn.Write(hello); err != nil {
		return nil, fmt.Errorf("nbd handshake: greet: %w", err)
	}
	var raw [4]byte
	if _, err := io.ReadFull(conn, raw[:]); err != nil {
		if err == io.EOF {
			return nil, nil // a probe: connect and go
		}
		return nil, fmt.Errorf("nbd handshake: client flags: %w", err)
	}
	flags := binary.BigEndian.Uint32(raw[:])
	if flags&flagFixedNewstyle == 0 || flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return nil, fmt.Errorf("nbd handshake: client flags %#x: %w", flags, ErrProtocol)
	}
	for range maxOptions {
		option, body, err := readOption(conn)
		if err != nil {
			return nil, err
		}
		export, done, err := s.answer(conn, option, body, flags&flagNoZeroes != 0)
		if err != nil || done {
			if err == nil {
				err = conn.SetDeadline(time.Time{})
			}
			return export, err
		}
	}
	return nil, fmt.Errorf("nbd handshake: more than %d options: %w", maxOptions, ErrProtocol)
}

// readOption reads one option of the client. One that is too long is an error:
// no client we serve sends such.
func readOption(from io.Reader) (option uint32, body []byte, err error) {
	var header [optHeaderSize]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return 0, nil, fmt.Errorf("nbd handshake: option: %w", err)
	}
	if magic := binary.BigEndian.Uint64(header[:]); magic != magicOption {
		return 0, nil, fmt.Errorf("nbd handshake: option magic %#x: %w", magic, ErrProtocol)
	}
	option = binary.BigEndian.Uint32(header[8:])
	length := binary.BigEndian.Uint32(header[12:])
	if length > maxOption {
		return 0, nil, fmt.Errorf("nbd handshake: option %d of %d bytes: %w", option, length, ErrProtocol)
	}
	body = make([]byte, length)
	if _, err := io.ReadFull(from, body); err != nil {
		return 0, nil, fmt.Errorf("nbd handshake: option %d: %w", option, err)
	}
	return option, body, nil
}

// answer replies to one option; done means the handshake is over.
func (s *Server) answer(to io.Writer, option uint32, body []byte, noZeroes bool) (export *served, done bool, err error) {
	switch option {
	case optGo, optInfo:
		info, err := parseInfoRequest(body)
		if err != nil {
			return nil, false, reply(to, option, repErrInvalid, nil)
		}
		export := s.exports[info.name]
		if export == nil {
			return nil, false, reply(to, option, repErrUnknown, []byte("no export "+info.name))
		}
		if err := describe(to, option, export); err != nil {
			return nil, false, err
		}
		if option == optInfo {
			return nil, false, nil
		}
		return export, true, nil
	case optExportName:
		export := s.exports[string(body)]
		if export == nil {
			// This old option has no way to say no but to hang up.
			return nil, true, fmt.Errorf("export %q asked for: %w", body, ErrNoExport)
		}
		raw := binary.BigEndian.AppendUint64(nil, uint64(export.Device.Size()))
		raw = binary.BigEndian.AppendUint16(raw, export.flags())
		if !noZeroes {
			raw = append(raw, make([]byte, 124)...)
		}
		_, err := to.Write(raw)
		return export, true, err
	case optAbort:
		// The client may be gone already; its goodbye counts all the same.
		_ = reply(to, option, repAck, nil)
		return nil, true, nil
	case optList:
		return nil, false, s.list(to, body)
	}
	return nil, false, reply(to, option, repErrUnsup, nil)
}

func (s *Server) list(to io.Writer, body []byte) error {
	if len(body) != 0 {
		return reply(to, optList, repErrInvalid, nil)
	}
	names := make([]string, 0, len(s.exports))
	for name := range s.exports {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		entry := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		if err := reply(to, optList, repServer, append(entry, name...)); err != nil {
			return err
		}
	}
	return reply(to, optList, repAck, nil)
}

// describe sends size, abilities and block sizes of the export, then the ack.
func describe(to io.Writer, option uint32, export *served) error {
	info := binary.BigEndian.AppendUint16(nil, infoExport)
	info = binary.BigEndian.AppendUint64(info, uint64(export.Device.Size()))
	info = binary.BigEndian.AppendUint16(info, export.flags())
	if err := reply(to, option, repInfo, info); err != nil {
		return err
	}
	sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	for _, size := range []uint32{1, 4096, MaxRequest} { // least, preferred, most
		sizes = binary.BigEndian.AppendUint32(sizes, size)
	}
	if err := reply(to, option, repInfo, sizes); err != nil {
		return err
	}
	return reply(to, option, repAck, nil)
}

func (e *served) flags() uint16 {
	flags := uint16(transHasFlags | transFlush | transFUA)
	if e.ReadOnly {
		return flags | transReadOnly
	}
	return flags | transTrim | transWriteZeroes | transFastZero
}

func reply(to io.Writer, option, kind uint32, body []byte) error {
	raw := binary.BigEndian.AppendUint64(nil, magicOptReply)
	raw = binary.BigEndian.AppendUint32(raw, option)
	raw = binary.BigEndian.AppendUint32(raw, kind)
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(body)))
	if _, err := to.Write(append(raw, body...)); err != nil {
		return fmt.Errorf("nbd handshake: reply to option %d: %w", option, err)
	}
	return nil
}
