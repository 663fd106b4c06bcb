package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
)

// chunk is the header of one structured reply chunk.
type chunk struct {
	flags  uint16
	kind   uint16
	handle uint64
	length uint32
}

// structuredReply takes one chunk of an answer; the one flagged done delivers.
func (c *Client) structuredReply(in io.Reader, k chunk) error {
	waiter, err := c.find(k.handle, false)
	if err != nil {
		return err
	}
	switch {
	case k.kind == chunkNone:
		if k.length != 0 || k.flags&chunkFlagDone == 0 {
			err = fmt.Errorf("empty chunk with %d bytes: %w", k.length, ErrProtocol)
		}
	case k.kind == chunkOffsetData || k.kind == chunkOffsetHole:
		err = waiter.takeRange(in, k)
	case k.kind == chunkBlockStatus:
		err = waiter.takeStatus(in, k.length, c.meta)
	case k.kind&chunkErrBit != 0:
		err = waiter.takeError(in, k.length)
	default:
		err = fmt.Errorf("chunk of kind %d: %w", k.kind, ErrProtocol)
	}
	if err != nil || k.flags&chunkFlagDone == 0 {
		return err
	}
	if _, err := c.find(k.handle, true); err != nil {
		return err
	}
	waiter.result <- waiter.err
	return nil
}

// takeRange stores a data chunk, or zeroes what a hole chunk covers.
func (w *call) takeRange(in io.Reader, k chunk) error {
	if k.length < 8 || (k.kind == chunkOffsetHole && k.length != 12) {
		return fmt.Errorf("data chunk of %d bytes: %w", k.length, ErrProtocol)
	}
	var raw [12]byte
	head := raw[:8]
	if k.kind == chunkOffsetHole {
		head = raw[:12]
	}
	if _, err := io.ReadFull(in, head); err != nil {
		return err
	}
	length := uint64(k.length - 8)
	if k.kind == chunkOffsetHole {
		length = uint64(binary.BigEndian.Uint32(raw[8:]))
	}
	start := binary.BigEndian.Uint64(raw[:]) - uint64(w.off)
	if start > uint64(len(w.buf)) || length > uint64(len(w.buf))-start {
		return fmt.Errorf("data chunk outside of the request: %w", ErrProtocol)
	}
	part := w.buf[start : start+length]
	if k.kind == chunkOffsetHole {
		clear(part)
		return nil
	}
	_, err := io.ReadFull(in, part)
	return err
}

// maxStatus bounds a block status chunk: far above what QEMU sends (2047 runs).
const maxStatus = 1 << 20

func (w *call) takeStatus(in io.Reader, length, meta uint32) error {
	if length < 12 || length > maxStatus || (length-4)%8 != 0 {
		return fmt.Errorf("block status chunk of %d bytes: %w", length, ErrProtocol)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(in, raw); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(raw) != meta {
		return fmt.Errorf("block status of another context: %w", ErrProtocol)
	}
	for at := 4; at < len(raw); at += 8 {
		run := int64(binary.BigEndian.Uint32(raw[at:]))
		if run == 0 {
			return fmt.Errorf("block status run of no bytes: %w", ErrProtocol)
		}
		w.extents = append(w.extents, Extent{Length: run, Zero: binary.BigEndian.Uint32(raw[at+4:])&stateZero != 0})
	}
	return nil
}

func (w *call) takeError(in io.Reader, length uint32) error {
	if length < 6 || length > maxOption {
		return fmt.Errorf("error chunk of %d bytes: %w", length, ErrProtocol)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(in, raw); err != nil {
		return err
	}
	text := raw[6:]
	text = text[:min(len(text), int(binary.BigEndian.Uint16(raw[4:])))]
	if w.err == nil {
		w.err = syscall.Errno(binary.BigEndian.Uint32(raw))
		if len(text) > 0 {
			w.err = fmt.Errorf("%s: %w", text, w.err)
		}
	}
	return nil
}
