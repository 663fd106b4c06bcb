package video

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Words of QEMU's migration stream, big-endian; migration/savevm.c and ram.c.
const (
	magic         = 0x5145564d
	version       = 3
	header        = 8 // bytes: magic and version
	sectionFull   = 0x04
	sectionFooter = 0x7e
	sectionID     = 0x7fffffff // QEMU counts its own from 0
	memoryVersion = 4

	flagZero     = 0x02 // a page of one byte
	flagSizes    = 0x04 // what blocks there are
	flagPage     = 0x08
	flagEnd      = 0x10
	flagContinue = 0x20 // the same block as before
)

// ErrState: not a device state of QEMU's.
var ErrState = errors.New("not a QEMU device state")

var zeroes [page]byte

// Insert gives a device state that has the content of a block of QEMU's memory
// too, as QEMU itself writes it in a migration: first of all, for devices
// look at it when they are loaded. Other blocks stay as they are.
func Insert(state []byte, block string, content []byte) ([]byte, error) {
	if len(state) < header || binary.BigEndian.Uint32(state) != magic || binary.BigEndian.Uint32(state[4:]) != version {
		return nil, fmt.Errorf("add the screen's memory: %w", ErrState)
	}
	if len(content) == 0 || len(content)%page != 0 || block == "" || len(block) > 255 {
		return nil, fmt.Errorf("add the screen's memory: %d bytes of block %q", len(content), block)
	}
	out := make([]byte, 0, len(state)+len(content)+len(content)/page*9+1024)
	out = append(out, state[:header]...)
	out = append(out, sectionFull)
	out = binary.BigEndian.AppendUint32(out, sectionID)
	out = name(out, "ram")
	out = binary.BigEndian.AppendUint32(out, 0) // the instance
	out = binary.BigEndian.AppendUint32(out, memoryVersion)
	out = binary.BigEndian.AppendUint64(out, uint64(len(content))|flagSizes)
	out = name(out, block)
	out = binary.BigEndian.AppendUint64(out, uint64(len(content)))
	for off := 0; off < len(content); off += page {
		out = onePage(out, block, uint64(off), content[off:off+page])
	}
	out = binary.BigEndian.AppendUint64(out, flagEnd)
	out = append(out, sectionFooter)
	out = binary.BigEndian.AppendUint32(out, sectionID)
	return append(out, state[header:]...), nil
}

func onePage(out []byte, block string, offset uint64, data []byte) []byte {
	zero := [page]byte(data) == zeroes
	word := offset | flagPage
	if zero {
		word = offset | flagZero
	}
	if offset > 0 {
		word |= flagContinue
	}
	out = binary.BigEndian.AppendUint64(out, word)
	if offset == 0 {
		out = name(out, block)
	}
	if zero {
		return append(out, 0)
	}
	return append(out, data...)
}

func name(out []byte, text string) []byte {
	return append(append(out, byte(len(text))), text...)
}
