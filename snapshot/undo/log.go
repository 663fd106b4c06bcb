package undo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vmctl/snapshot/durable"

	"golang.org/x/sys/unix"
)

const segmentSuffix = ".seg"

func segmentPath(dir string, sequence uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", sequence, segmentSuffix))
}

// loadSegments opens the segments that are there, and finishes a rollback that
// was cut off: until it is done the image is at no marker.
func (d *Disk) loadSegments() error {
	if err := d.loadHold(); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.undoPath())
	if err != nil {
		return err
	}
	for _, entry := range entries { // in the order of names, so of sequences
		name, isSegment := strings.CutSuffix(entry.Name(), segmentSuffix)
		sequence, err := strconv.ParseUint(name, 16, 64)
		if !isSegment || err != nil || len(name) != 16 {
			if strings.HasSuffix(entry.Name(), durable.TemporarySuffix) {
				_ = d.files.Remove(filepath.Join(d.undoPath(), entry.Name()))
			}
			continue
		}
		s, err := openSegment(d.files, filepath.Join(d.undoPath(), entry.Name()), sequence, d.size)
		if err != nil {
			return err
		}
		d.segments = append(d.segments, s)
	}
	if err := d.finishFold(); err != nil {
		return err
	}
	if s := d.current(); s != nil {
		if err := s.resume(d.size); err != nil {
			return err
		}
	}
	return d.finishRollback()
}

// current is the segment that takes records, nil when there is no marker.
func (d *Disk) current() *segment {
	if len(d.segments) == 0 {
		return nil
	}
	return d.segments[len(d.segments)-1]
}

// Mark names the present content sequence, which must be newer than every
// marker there is. What is overwritten from now on is kept for it.
func (d *Disk) Mark(sequence uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("mark %s: %w", d.path, ErrClosed)
	}
	last := d.current()
	if last != nil && sequence <= last.sequence {
		return fmt.Errorf("mark %s with %d, after %d: %w", d.path, sequence, last.sequence, ErrMarker)
	}
	s, err := createSegment(d.files, d.undoPath(), sequence, d.size)
	if err != nil {
		return fmt.Errorf("mark %s with %d: %w", d.path, sequence, err)
	}
	if last != nil {
		last.saved = nil
	}
	d.segments = append(d.segments, s)
	return nil
}

// Marks lists the markers the disk can be rolled back to, oldest first.
func (d *Disk) Marks() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	marks := make([]uint64, len(d.segments))
	for i, s := range d.segments {
		marks[i] = s.sequence
	}
	return marks
}

// Used is how many bytes the undo segments have.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var used int64
	for _, s := range d.segments {
		used += s.end
	}
	return used
}

// Drop forgets the markers older than before. When that is all of them, nothing
// is logged until the next Mark.
func (d *Disk) Drop(before uint64) error {
	d.syncing.Lock() // a segment being synced is not closed
	defer d.syncing.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return fmt.Errorf("drop markers of %s: %w", d.path, ErrClosed)
	}
	keep := slices.IndexFunc(d.segments, func(s *segment) bool { return s.sequence >= before })
	if keep < 0 {
		keep = len(d.segments)
	}
	old := d.segments[:keep]
	d.segments = slices.Clone(d.segments[keep:])
	d.mu.Unlock()
	for _, s := range old { // oldest first: what is left after a crash has no gap
		if err := s.remove(); err != nil {
			return fmt.Errorf("drop marker %d of %s: %w", s.sequence, d.path, err)
		}
	}
	return nil
}

// preserve logs those blocks of the range that are not in the current segment,
// and those that are not in the hold, durably. d.mu is held.
func (d *Disk) preserve(off, length int64) error {
	if d.closed {
		return fmt.Errorf("write %s: %w", d.path, ErrClosed)
	}
	if err := d.preserveIn(d.held, off, length); err != nil {
		return err
	}
	if d.held != nil && d.held.unsynced {
		if err := d.held.settle(); err != nil {
			return err
		}
	}
	return d.preserveIn(d.current(), off, length)
}

// preserveIn logs those blocks of the range that are not in s; d.mu is held.
func (d *Disk) preserveIn(s *segment, off, length int64) error {
	if s == nil || s.damage != nil || length == 0 {
		return nil
	}
	block, end := off/blockSize, (off+length+blockSize-1)/blockSize
	for {
		from, to := s.saved.missing(block, end)
		if from == to {
			return nil
		}
		if err := d.preserveRun(s, from*blockSize, min(to*blockSize, d.size)); err != nil {
			return err
		}
		block = to
	}
}

// seekAbove is the length of a run from which asking for holes beats reading.
const seekAbove = 256 << 10

// preserveRun logs [off, end), block aligned, none of which is logged.
func (d *Disk) preserveRun(s *segment, off, end int64) error {
	for off < end {
		stop := min(off+maxRecord, end)
		hole := false
		if end-off >= seekAbove {
			data, err := d.nextData(off)
			if err != nil {
				return err
			}
			data = data / blockSize * blockSize
			if hole = data > off; hole {
				stop = min(data, end)
			}
		}
		if err := d.preservePiece(s, off, stop, hole); err != nil {
			return err
		}
		s.saved.add(off/blockSize, (stop+blockSize-1)/blockSize)
		off = stop
	}
	return nil
}

// preservePiece logs one record. A hole may be of any length, else it is at
// most maxRecord.
func (d *Disk) preservePiece(s *segment, off, end int64, hole bool) error {
	length := end - off
	if !hole {
		if need := int(headerSize + length); cap(d.scratch) < need {
			d.scratch = make([]byte, need)
		}
		raw := d.scratch[:headerSize+length]
		if _, err := d.image.ReadAt(raw[headerSize:], off); err != nil {
			return fmt.Errorf("read old content of %s at %d: %w", d.path, off, err)
		}
		if !IsZero(raw[headerSize:]) {
			putHeader(raw, magicData, s.stamp(), off, length, raw[headerSize:])
			return s.append(raw)
		}
	}
	var head [headerSize]byte
	putHeader(head[:], magicZero, s.stamp(), off, length, nil)
	return s.append(head[:])
}

// nextData is the position of the first data at or behind off, the disk's size
// if there is none.
func (d *Disk) nextData(off int64) (int64, error) {
	var at int64
	err := d.image.Control(func(fd int) (err error) {
		at, err = unix.Seek(fd, off, unix.SEEK_DATA)
		return err
	})
	switch {
	case err == nil:
		return at, nil
	case errors.Is(err, unix.ENXIO):
		return d.size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return off, nil // a file system that does not tell
	}
	return 0, fmt.Errorf("find data in %s at %d: %w", d.path, off, err)
}

// readContent reads and verifies the data of a record; nil means zeroes.
func (s *segment) readContent(r record, buf []byte) ([]byte, error) {
	var content []byte
	if r.magic == magicData {
		content = buf[:r.length]
		if _, err := s.file.ReadAt(content, r.data); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read undo segment %d: %w", s.sequence, err)
		}
	}
	var head [headerSize]byte
	putHeader(head[:], r.magic, r.stamp, r.offset, r.length, content)
	if binary.LittleEndian.Uint32(head[4:]) != r.sum {
		return nil, fmt.Errorf("%w: checksum of the record at %d in segment %d", ErrDamaged, r.data-headerSize, s.sequence)
	}
	return content, nil
}
