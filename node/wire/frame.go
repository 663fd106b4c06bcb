package wire

import (
	"encoding/binary"
	"fmt"
)

// AppendFrame appends a frame to dst, for an end that does its own writing.
func AppendFrame(dst []byte, limit int, kind Kind, body any) ([]byte, error) {
	start := len(dst)
	framed, err := appendValue(append(dst, make([]byte, headerSize)...), uint8(kind))
	if err == nil {
		framed, err = appendValue(framed, body)
	}
	if err != nil {
		return dst, err
	}
	size := len(framed) - start - headerSize
	if size > limit {
		return dst, fmt.Errorf("make frame of kind %d, %d bytes (limit %d): %w", kind, size, limit, ErrFrameTooLarge)
	}
	binary.BigEndian.PutUint32(framed[start:], uint32(size))
	return framed, nil
}

// CutFrame reads the frame that data begins with: its kind, its body (a part of
// data) and its whole size, which is 0 as long as data has only a part of it.
func CutFrame(data []byte, limit int) (size int, kind Kind, body []byte, err error) {
	if len(data) < headerSize {
		return 0, 0, nil, nil
	}
	size = int(binary.BigEndian.Uint32(data))
	if size > limit {
		return 0, 0, nil, fmt.Errorf("receive frame of %d bytes (limit %d): %w", size, limit, ErrFrameTooLarge)
	}
	size += headerSize
	if len(data) < size {
		return 0, 0, nil, nil
	}
	kind, body, err = splitFrame(data[headerSize:size])
	return size, kind, body, err
}
