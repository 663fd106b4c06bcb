package wire

import (
	"encoding/binary"
	"fmt"
)

// AppendFrame appends a frame to dst, for an end that does its own writing.
func AppendFrame(dst []byte, limit int, kind Kind, body any) ([]byte, error) {
	payload, err := Encode(uint8(kind))
	if err != nil {
		return dst, err
	}
	value, err := Encode(body)
	if err != nil {
		return dst, err
	}
	size := len(payload) + len(value)
	if size > limit {
		return dst, fmt.Errorf("make frame of kind %d, %d bytes (limit %d): %w", kind, size, limit, ErrFrameTooLarge)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	return append(append(dst, payload...), value...), nil
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
