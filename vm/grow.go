package vm

import (
	"context"
	"fmt"
	"strings"

	"vmctl/vm/disk"
)

// Growth is what a user wants a disk to be, in absolute numbers or beside what it
// has.
type Growth struct {
	Size     Size
	Relative bool
}

// ParseGrowth reads "20G", or "+5G" for so much more.
func ParseGrowth(text string) (Growth, error) {
	rest, relative := strings.CutPrefix(strings.TrimSpace(text), "+")
	size, err := ParseSize(rest)
	if err != nil {
		return Growth{}, err
	}
	return Growth{size, relative}, nil
}

// Of is the size of a disk that has now bytes, in bytes. It may be below that.
func (g Growth) Of(now int64) (int64, error) {
	size := g.Size
	if g.Relative {
		size = size.add(Size(now))
	}
	if size < MiB || size%512 != 0 || size > PiB {
		return 0, fmt.Errorf("a disk of %v: use at least 1M, at most 1P, a multiple of 512 bytes", size)
	}
	return int64(size), nil
}

// Resized is the spec with another size of a disk. A disk that is an existing file
// has none in the spec.
func (s Spec) Resized(disk int, size int64) Spec {
	s.Disks = append([]Disk(nil), s.Disks...)
	if d := &s.Disks[disk]; d.Path == "" {
		d.Size = Size(size)
	}
	return s
}

// MayGrow says whether the file system takes a disk of that size: disk.ErrTooLarge if
// not. To be asked before anything is changed for it.
func MayGrow(file DiskFile, size int64) error {
	if file.Format != FormatRaw {
		return nil // the file is as large as what was written
	}
	return disk.Takes(file.Path, size)
}

// GrowStopped makes a disk of a guest that does not run larger, durably.
func GrowStopped(ctx context.Context, h Host, d Disk, file DiskFile, size int64) error {
	return disk.Tool{Path: h.QEMUImg}.Grow(ctx, file.Path, file.Format, size, d.Preallocate)
}

// BeforeGrowing takes the space that a running guest's disk is to have, if it is to
// have it at once. QEMU does not: it makes the image larger and no more.
func BeforeGrowing(d Disk, file DiskFile, from, to int64) error {
	if !d.Preallocate || file.Format != FormatRaw {
		return nil
	}
	return disk.Reserve(file.Path, from, to)
}
