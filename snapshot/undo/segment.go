package undo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"vmctl/snapshot/durable"
)

const (
	blockSize = 4 << 10 // unit of logging
	maxRecord = 1 << 20 // most data bytes in one record
	// headerSize is the length of a segment's and of a record's header.
	headerSize = 32

	magicSegment = 0x31676573 // "seg1"
	magicData    = 0x31746164 // "dat1": header, then length bytes of old content
	magicZero    = 0x3172657a // "zer1": header only; length bytes were zeroes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one undo file. Its fields are guarded by Disk.mu; the file may be
// synced without it.
type segment struct {
	sequence uint64
	path     string
	files    durable.Files
	file     *durable.File
	end      int64 // where the next record goes
	saved    blockSet
	unsynced bool  // has records that no Sync has seen
	damage   error // why it cannot be undone; it takes no more records

	hold   bool  // it is the hold's, see hold.go
	synced int64 // of a hold: as far as that it is durable
}

// stamp goes into the records that are appended now.
func (s *segment) stamp() uint64 {
	if s.hold {
		return uint64(s.synced)
	}
	return s.sequence
}

// record is one header: which content it keeps, and where its data is.
type record struct {
	magic  uint32
	sum    uint32
	offset int64
	length int64
	stamp  uint64
	data   int64 // position of the data in the segment
}

// putHeader fills head for content (nil for zeroes) and seals it.
func putHeader(head []byte, magic uint32, sequence uint64, offset, length int64, content []byte) {
	binary.LittleEndian.PutUint32(head, magic)
	binary.LittleEndian.PutUint64(head[8:], uint64(offset))
	binary.LittleEndian.PutUint64(head[16:], uint64(length))
	binary.LittleEndian.PutUint64(head[24:], sequence)
	binary.LittleEndian.PutUint32(head[4:], checksum(head, content))
}

func checksum(head, content []byte) uint32 {
	sum := crc32.Update(0, castagnoli, head[:4])
	sum = crc32.Update(sum, castagnoli, head[8:headerSize])
	return crc32.Update(sum, castagnoli, content)
}

// parseHeader reads the record header at position at of a segment. What it
// accepts lies inside the disk; the content is not checked yet.
func parseHeader(head []byte, sequence uint64, diskSize, at int64) (record, error) {
	r := record{
		magic:  binary.LittleEndian.Uint32(head),
		sum:    binary.LittleEndian.Uint32(head[4:]),
		offset: int64(binary.LittleEndian.Uint64(head[8:])),
		length: int64(binary.LittleEndian.Uint64(head[16:])),
		stamp:  binary.LittleEndian.Uint64(head[24:]),
		data:   at + headerSize,
	}
	bad := func(what string) (record, error) {
		return record{}, fmt.Errorf("%w: record at %d: %s", ErrDamaged, at, what)
	}
	switch {
	case r.magic != magicData && r.magic != magicZero:
		return bad("unknown kind")
	case r.stamp != sequence:
		return bad("of another segment")
	case r.offset < 0 || r.length <= 0 || r.offset > diskSize || r.length > diskSize-r.offset:
		return bad("outside of the disk")
	case r.magic == magicData && r.length > maxRecord:
		return bad("too long")
	}
	return r, nil
}

// next is the position behind the record.
func (r record) next() int64 {
	if r.magic == magicZero {
		return r.data
	}
	return r.data + r.length
}

// longest is how many bytes the longest content of records takes. Most logs of an
// epoch are short: room for what a record may have would take longer to clear than
// they to read.
func longest(all []record) (n int64) {
	for _, r := range all {
		if r.magic == magicData {
			n = max(n, r.length)
		}
	}
	return n
}

// createSegment makes an empty segment. It appears under its name complete or
// not at all.
func createSegment(files durable.Files, dir string, sequence uint64, diskSize int64) (*segment, error) {
	s := &segment{files: files, sequence: sequence, path: segmentPath(dir, sequence), end: headerSize, saved: blockSet{}, unsynced: true}
	var err error
	s.file, err = files.Place(s.path, func(file *durable.File) error {
		var head [headerSize]byte
		putHeader(head[:], magicSegment, sequence, 0, diskSize, nil)
		_, err := file.WriteAt(head[:], 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openSegment opens a segment that is there. A segment that does not look right
// is opened as damaged: the disk stays usable, its rollback does not.
func openSegment(files durable.Files, path string, sequence uint64, diskSize int64) (*segment, error) {
	file, err := files.Open(path, 0)
	if err != nil {
		return nil, err
	}
	s := &segment{files: files, sequence: sequence, path: path, file: file, unsynced: true}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.end = info.Size()
	var head [headerSize]byte
	if _, err := file.ReadAt(head[:], 0); err != nil || !ofSmaller(head[:], sequence, diskSize) {
		s.damage = fmt.Errorf("%w: segment header is wrong", ErrDamaged)
	}
	return s, nil
}

// records lists the records; torn is the position of an incomplete last one, or
// the end.
func (s *segment) records(diskSize int64) (all []record, torn int64, err error) {
	var head [headerSize]byte
	at := int64(headerSize)
	for at+headerSize <= s.end {
		if _, err := s.file.ReadAt(head[:], at); err != nil {
			return nil, 0, fmt.Errorf("read undo segment %d: %w", s.sequence, err)
		}
		r, err := parseHeader(head[:], s.sequence, diskSize, at)
		if err != nil {
			return nil, 0, err
		}
		if r.next() > s.end {
			break
		}
		all = append(all, r)
		at = r.next()
	}
	return all, at, nil
}

// resume prepares the newest segment of an opened disk for more records: it
// cuts off a torn tail and learns which blocks are logged.
func (s *segment) resume(diskSize int64) error {
	s.saved = blockSet{}
	if s.damage != nil {
		return nil
	}
	all, torn, err := s.records(diskSize)
	switch {
	case errors.Is(err, ErrDamaged):
		s.damage = err
		return nil
	case err != nil:
		return err
	}
	for _, r := range all {
		s.saved.add(r.whole(diskSize))
	}
	if torn < s.end {
		if err := s.file.Truncate(torn); err != nil {
			return fmt.Errorf("cut the torn tail of undo segment %d: %w", s.sequence, err)
		}
		s.end = torn
	}
	return nil
}

// append writes a sealed record. After a failure the segment ends where it did,
// or takes no more records.
func (s *segment) append(raw []byte) error {
	if _, err := s.file.WriteAt(raw, s.end); err != nil {
		if cut := s.file.Truncate(s.end); cut != nil {
			s.damage = fmt.Errorf("%w: half a record could not be cut off: %w", ErrDamaged, cut)
		}
		return fmt.Errorf("log old content in undo segment %d: %w", s.sequence, err)
	}
	s.end += int64(len(raw))
	s.unsynced = true
	return nil
}

// remove closes and deletes the segment.
func (s *segment) remove() error {
	return errors.Join(s.file.Close(), s.files.Remove(s.path))
}
