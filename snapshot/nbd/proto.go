package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// MaxRequest is the largest read or write payload in bytes: QEMU's own limit.
const MaxRequest = 32 << 20

// Numbers of the protocol, as the NBD specification names them.
const (
	magicInit       = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName  = 1
	optAbort       = 2
	optList        = 3
	optStartTLS    = 5
	optInfo        = 6
	optGo          = 7
	optStructured  = 8
	optSetMeta     = 10
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMeta        = 4
	repErrBit      = 1 << 31
	repErrUnsup    = repErrBit + 1
	repErrInvalid  = repErrBit + 3
	repErrUnknown  = repErrBit + 6
	repErrShutdown = repErrBit + 7
	repErrTooBig   = repErrBit + 9

	infoExport    = 0
	infoBlockSize = 3

	transHasFlags    = 1 << 0
	transReadOnly    = 1 << 1
	transFlush       = 1 << 2
	transFUA         = 1 << 3
	transTrim        = 1 << 5
	transWriteZeroes = 1 << 6
	transFastZero    = 1 << 11

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagFastZero = 1 << 4

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkErrBit      = 1 << 15
	chunkFlagDone    = 1

	stateHole = 1 << 0
	stateZero = 1 << 1

	requestSize   = 28
	optHeaderSize = 16
	maxOption     = 8 << 10
	maxName       = 4096
)

var (
	// ErrProtocol means the other end broke the protocol; the connection ends.
	ErrProtocol = errors.New("nbd protocol violated")
	// ErrNotSupported is answered as ENOTSUP: the Device cannot do this.
	ErrNotSupported = errors.New("not supported by this export")
	// ErrHangup from a Device ends the connection without an answer, so that the
	// client asks again on a new one. (QEMU takes an error answer for final.)
	ErrHangup = errors.New("connection is ended without an answer")
	// ErrNoExport means that the server has no export of that name.
	ErrNoExport = errors.New("no such nbd export")
	// ErrClosed means that the client's connection has ended.
	ErrClosed = errors.New("nbd connection closed")
)

// request is one command of the transmission phase, without its payload.
type request struct {
	flags  uint16
	kind   uint16
	handle uint64
	offset uint64
	length uint32
}

func parseRequest(raw []byte) (request, error) {
	if len(raw) < requestSize {
		return request{}, fmt.Errorf("request of %d bytes: %w", len(raw), ErrProtocol)
	}
	if magic := binary.BigEndian.Uint32(raw); magic != magicRequest {
		return request{}, fmt.Errorf("request magic %#x: %w", magic, ErrProtocol)
	}
	return request{
		flags:  binary.BigEndian.Uint16(raw[4:]),
		kind:   binary.BigEndian.Uint16(raw[6:]),
		handle: binary.BigEndian.Uint64(raw[8:]),
		offset: binary.BigEndian.Uint64(raw[16:]),
		length: binary.BigEndian.Uint32(raw[24:]),
	}, nil
}

func (r request) append(to []byte) []byte {
	to = binary.BigEndian.AppendUint32(to, magicRequest)
	to = binary.BigEndian.AppendUint16(to, r.flags)
	to = binary.BigEndian.AppendUint16(to, r.kind)
	to = binary.BigEndian.AppendUint64(to, r.handle)
	to = binary.BigEndian.AppendUint64(to, r.offset)
	return binary.BigEndian.AppendUint32(to, r.length)
}

// payload is how many bytes follow the request on the wire.
func (r request) payload() int {
	if r.kind == cmdWrite {
		return int(r.length)
	}
	return 0
}

// check refuses what the protocol forbids for an export of size bytes.
func (r request) check(size int64) syscall.Errno {
	allowed := uint16(cmdFlagFUA)
	switch r.kind {
	case cmdRead, cmdWrite, cmdFlush, cmdTrim:
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole | cmdFlagFastZero
	default:
		return syscall.EINVAL
	}
	switch {
	case r.flags&^allowed != 0:
		return syscall.EINVAL
	case r.kind == cmdFlush:
		if r.offset != 0 || r.length != 0 {
			return syscall.EINVAL
		}
	case r.kind == cmdRead && r.length > MaxRequest:
		return syscall.EOVERFLOW
	case r.offset > uint64(size) || uint64(r.length) > uint64(size)-r.offset:
		if r.kind == cmdRead || r.kind == cmdTrim {
			return syscall.EINVAL
		}
		return syscall.ENOSPC
	}
	return 0
}

// errno maps a Device's error to a number that NBD knows.
func errno(err error) uint32 {
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrNotSupported):
		return uint32(syscall.EOPNOTSUPP)
	case errors.As(err, &number):
		switch number {
		case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC,
			syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.ESHUTDOWN:
			return uint32(number)
		}
	}
	return uint32(syscall.EIO)
}

// infoRequest is the body of NBD_OPT_GO and NBD_OPT_INFO.
type infoRequest struct {
	name  string
	infos []uint16
}

func parseInfoRequest(body []byte) (infoRequest, error) {
	bad := func(what string) (infoRequest, error) {
		return infoRequest{}, fmt.Errorf("info request: %s: %w", what, ErrProtocol)
	}
	if len(body) < 6 {
		return bad("too short")
	}
	nameLen := binary.BigEndian.Uint32(body)
	if nameLen > maxName || int(nameLen) > len(body)-6 {
		return bad("name too long")
	}
	out := infoRequest{name: string(body[4 : 4+nameLen])}
	rest := body[4+nameLen:]
	count := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	if len(rest) != 2*count {
		return bad("wrong number of infos")
	}
	for i := range count {
		out.infos = append(out.infos, binary.BigEndian.Uint16(rest[2*i:]))
	}
	return out, nil
}

func (i infoRequest) append(to []byte) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(len(i.name)))
	to = append(to, i.name...)
	to = binary.BigEndian.AppendUint16(to, uint16(len(i.infos)))
	for _, info := range i.infos {
		to = binary.BigEndian.AppendUint16(to, info)
	}
	return to
}
