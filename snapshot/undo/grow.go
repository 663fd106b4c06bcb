package undo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"vmctl/snapshot/durable"

	"golang.org/x/sys/unix"
)

// A disk grows while nobody has it open, and only when somebody says from which
// size: an image that is shorter than it should be for any other reason is damaged.
//
// What was logged of the smaller disk stays good: the new part was empty at every
// earlier moment, so a rollback or a Restore leaves it empty, and it is logged as
// any other part is from then on. The last block of a disk whose size is no
// multiple of a block is the one that was logged in part; see record.whole.

// Grow makes the image at path, which has from bytes or to bytes already, one of
// to bytes, durably; what is new reads as zeroes. Cut off, it is to be done again.
// On ErrSize and ErrInUse nothing was changed.
func Grow(files durable.Files, path string, from, to int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("grow replica disk %s from %d bytes to %d: %w", path, from, to, err)
		}
	}()
	image, err := files.Open(path, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if err := unix.Flock(int(image.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w (%w)", ErrInUse, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	switch size := info.Size(); {
	case size == 0 && from <= to: // its making was cut off; Open makes it
		return nil
	case from > to, size != from && size != to:
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	case size == from && from < to:
		if err := image.Truncate(to); err != nil {
			return err
		}
	}
	return image.Sync()
}

// ofSmaller says whether head is the header of a segment of this disk when it was
// smaller, or as it is.
func ofSmaller(head []byte, sequence uint64, diskSize int64) bool {
	size := int64(binary.LittleEndian.Uint64(head[16:]))
	if size <= 0 || size > diskSize {
		return false
	}
	var want [headerSize]byte
	putHeader(want[:], magicSegment, sequence, 0, size, nil)
	return [headerSize]byte(head) == want
}

// whole are the blocks of which a record has everything: not the last one of a
// disk that was smaller when it was logged, and ended in it.
func (r record) whole(diskSize int64) (first, end int64) {
	first, end = r.blocks()
	if last := r.offset + r.length; last%blockSize != 0 && last < diskSize {
		end--
	}
	return first, end
}
