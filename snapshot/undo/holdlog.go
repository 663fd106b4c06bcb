package undo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// loadHold opens the hold that an earlier process left.
func (d *Disk) loadHold() error {
	if _, err := os.Stat(d.holdPath()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := openSegment(d.files, d.holdPath(), 0, d.size)
	if err != nil {
		return err
	}
	s.hold, s.saved, d.held = true, blockSet{}, s
	if s.damage != nil {
		return nil
	}
	all, end, err := d.durableRecords(s)
	if errors.Is(err, ErrDamaged) {
		s.damage = err
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range all {
		s.saved.add(r.whole(d.size))
	}
	if end < s.end {
		if err := s.file.Truncate(end); err != nil {
			return fmt.Errorf("cut the torn tail of what is held: %w", err)
		}
		s.end = end
	}
	// The process that is gone may have synced none of its last ones.
	return s.settle()
}

// durableRecords lists the records of a hold up to the first that is not whole.
// What is before a place that a record calls durable is not looked into, but has
// to look like records.
func (d *Disk) durableRecords(s *segment) (all []record, end int64, err error) {
	var listed []record
	var certain int64
	end = headerSize
	for end+headerSize <= s.end {
		r, err := s.recordAt(d.size, end)
		if errors.Is(err, ErrDamaged) || err == nil && (r.next() > s.end || int64(r.stamp) > end) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		listed, end, certain = append(listed, r), r.next(), max(certain, int64(r.stamp))
	}
	buf := make([]byte, maxRecord)
	if err := d.nothingDurableBehind(s, end, buf); err != nil {
		return nil, 0, err
	}
	end = headerSize
	for _, r := range listed {
		if r.data-headerSize >= certain {
			if _, err := s.readContent(r, buf); errors.Is(err, ErrDamaged) {
				break
			} else if err != nil {
				return nil, 0, err
			}
		}
		all, end = append(all, r), r.next()
	}
	return all, end, nil
}

// nothingDurableBehind looks for a whole record behind the last that can be read
// in a row, which says that more than that was durable.
func (d *Disk) nothingDurableBehind(s *segment, end int64, buf []byte) error {
	magic := binary.LittleEndian.AppendUint32(nil, magicData)
	zeroMagic := binary.LittleEndian.AppendUint32(nil, magicZero)
	window := make([]byte, maxRecord)
	for from := end; from < s.end; from += int64(len(window)) {
		n, err := s.file.ReadAt(window, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read what is held: %w", err)
		}
		for at := 0; at+4 <= n; at += headerSize { // the lengths of all records are multiples of it
			if word := window[at : at+4]; !bytes.Equal(word, magic) && !bytes.Equal(word, zeroMagic) {
				continue
			}
			r, err := s.recordAt(d.size, from+int64(at))
			if err != nil || int64(r.stamp) <= end || r.next() > s.end {
				continue
			}
			if _, err := s.readContent(r, buf); err == nil {
				return fmt.Errorf("%w: what is held can be read up to %d, %d was durable", ErrDamaged, end, r.stamp)
			}
		}
	}
	return nil
}

// recordAt reads the header at a position of a hold.
func (s *segment) recordAt(diskSize, at int64) (record, error) {
	var head [headerSize]byte
	if _, err := s.file.ReadAt(head[:], at); err != nil {
		return record{}, fmt.Errorf("read what is held: %w", err)
	}
	return parseHeader(head[:], binary.LittleEndian.Uint64(head[24:]), diskSize, at)
}

// verifyHold lists the records after checking every one.
func (d *Disk) verifyHold(s *segment) ([]record, error) {
	if s.damage != nil {
		return nil, s.damage
	}
	var all []record
	buf := make([]byte, maxRecord)
	for at := int64(headerSize); at < s.end; {
		r, err := s.recordAt(d.size, at)
		if err != nil {
			return nil, err
		}
		if _, err := s.readContent(r, buf); err != nil {
			return nil, err
		}
		all, at = append(all, r), r.next()
	}
	return all, nil
}
