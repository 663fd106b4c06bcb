package replicator

import (
	"encoding/binary"
	"fmt"
)

// decodeWrite reads a Write whose Data lies inside body, without copying it: it
// is the one message whose size matters.
func decodeWrite(body []byte) (Write, error) {
	r := reader{rest: body}
	if n := r.arrayLength(); n != 4 && !r.failed {
		r.failed = true
	}
	disk, id, offset := r.unsigned(), r.unsigned(), r.unsigned()
	data := r.bytes()
	if r.failed || len(r.rest) != 0 || disk > 1<<31 || offset > 1<<62 {
		return Write{}, fmt.Errorf("%w: write frame of %d bytes", ErrMessage, len(body))
	}
	return Write{Disk: uint32(disk), ID: id, Offset: int64(offset), Data: data}, nil
}

// reader takes msgpack values off a buffer.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) big(size uint64) uint64 {
	raw := r.take(size)
	if raw == nil {
		return 0
	}
	var wide [8]byte
	copy(wide[8-size:], raw)
	return binary.BigEndian.Uint64(wide[:])
}

func (r *reader) code() byte {
	if raw := r.take(1); raw != nil {
		return raw[0]
	}
	return 0
}

func (r *reader) arrayLength() int {
	if c := r.code(); c&0xf0 == 0x90 {
		return int(c & 0x0f)
	}
	r.failed = true
	return 0
}

// unsigned takes any integer that is not negative.
func (r *reader) unsigned() uint64 {
	c := r.code()
	switch {
	case c < 0x80:
		return uint64(c)
	case c >= 0xcc && c <= 0xcf: // uint 8 to 64
		return r.big(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3: // int 8 to 64
		size := uint64(1) << (c - 0xd0)
		value := r.big(size)
		if value>>(8*size-1) == 0 {
			return value
		}
	}
	r.failed = true
	return 0
}

func (r *reader) bytes() []byte {
	c := r.code()
	if c == 0xc0 { // nil
		return nil
	}
	if c < 0xc4 || c > 0xc6 { // bin 8 to 32
		r.failed = true
		return nil
	}
	return r.take(r.big(1 << (c - 0xc4)))
}
