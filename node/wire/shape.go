package wire

import (
	"encoding/binary"
	"fmt"
)

// maxDepth is how deep values may be nested: the decoder calls itself for each
// level, and none of our messages has more than a few.
const maxDepth = 32

// checkShape walks over one msgpack value and refuses what the decoder would
// make room for although it cannot be there: an array or map of more elements
// than bytes follow, or one nested without end.
func checkShape(body []byte) error {
	var open [maxDepth]uint64 // elements to come, a level
	open[0] = 1
	for depth := 0; depth >= 0; {
		if open[depth] == 0 {
			depth--
			continue
		}
		open[depth]--
		rest, elements, err := stepOver(body)
		switch {
		case err != nil:
			return err
		case elements > uint64(len(rest)):
			return fmt.Errorf("%d elements in %d bytes: %w", elements, len(rest), ErrMalformed)
		case elements > 0 && depth == maxDepth-1:
			return fmt.Errorf("nested deeper than %d: %w", maxDepth, ErrMalformed)
		case elements > 0:
			depth++
			open[depth] = elements
		}
		body = rest
	}
	return nil
}

// stepOver passes over a value without elements, or the head of one that has
// some.
func stepOver(body []byte) (rest []byte, elements uint64, err error) {
	if len(body) == 0 {
		return nil, 0, fmt.Errorf("a value is missing: %w", ErrMalformed)
	}
	code, body := body[0], body[1:]
	switch {
	case code <= 0x7f, code >= 0xe0, code == 0xc0, code == 0xc2, code == 0xc3: // small integers, nil, booleans
		return body, 0, nil
	case code <= 0x8f:
		return body, 2 * uint64(code&0x0f), nil
	case code <= 0x9f:
		return body, uint64(code & 0x0f), nil
	case code <= 0xbf:
		return cutOff(body, uint64(code&0x1f))
	}
	head := heads[code-0xc0]
	if head == (valueHead{}) {
		return nil, 0, fmt.Errorf("no value begins with byte %#x: %w", code, ErrMalformed)
	}
	if len(body) < head.length {
		return nil, 0, fmt.Errorf("cut in a length: %w", ErrMalformed)
	}
	var number [8]byte
	copy(number[8-head.length:], body[:head.length])
	count := binary.BigEndian.Uint64(number[:])
	if head.each > 0 {
		return body[head.length:], count * head.each, nil
	}
	return cutOff(body[head.length:], count+head.fixed)
}

func cutOff(body []byte, size uint64) ([]byte, uint64, error) {
	if size > uint64(len(body)) {
		return nil, 0, fmt.Errorf("%d of %d bytes: %w", len(body), size, ErrMalformed)
	}
	return body[size:], 0, nil
}

// valueHead describes what follows a first byte: a length of so many bytes, then
// that many bytes and a fixed number more, or that many times each elements.
type valueHead struct {
	length int
	fixed  uint64
	each   uint64
}

// heads are those of the first bytes 0xc4 to 0xdf, from 0xc0 on.
var heads = [32]valueHead{
	0x04: {length: 1}, 0x05: {length: 2}, 0x06: {length: 4}, // bytes
	0x07: {length: 1, fixed: 1}, 0x08: {length: 2, fixed: 1}, 0x09: {length: 4, fixed: 1}, // extensions
	0x0a: {fixed: 4}, 0x0b: {fixed: 8}, // floats
	0x0c: {fixed: 1}, 0x0d: {fixed: 2}, 0x0e: {fixed: 4}, 0x0f: {fixed: 8}, // unsigned
	0x10: {fixed: 1}, 0x11: {fixed: 2}, 0x12: {fixed: 4}, 0x13: {fixed: 8}, // signed
	0x14: {fixed: 2}, 0x15: {fixed: 3}, 0x16: {fixed: 5}, 0x17: {fixed: 9}, 0x18: {fixed: 17}, // extensions
	0x19: {length: 1}, 0x1a: {length: 2}, 0x1b: {length: 4}, // strings
	0x1c: {length: 2, each: 1}, 0x1d: {length: 4, each: 1}, // arrays
	0x1e: {length: 2, each: 2}, 0x1f: {length: 4, each: 2}, // maps
}
