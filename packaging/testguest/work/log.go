package work

import (
	"bytes"
	"fmt"
	"io"
)

// File is a disk or a file on one, opened past the page cache.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Log appends records to a file, and looks before each one whether the file
// still is what the guest's memory says.
type Log struct {
	name   string
	file   File
	slots  uint64
	last   Record
	before Record // the one before last, if this process has written last
	buffer []byte // three sectors, page aligned for direct I/O
}

// OpenLog reads and checks what the file holds. The buffer is used for all
// later I/O: a page, aligned.
func OpenLog(name string, file File, slots int, buffer []byte) (*Log, History, error) {
	content := Aligned(slots * RecordSize)
	if _, err := file.ReadAt(content, 0); err != nil {
		return nil, History{}, fmt.Errorf("%s: read the log: %w", name, err)
	}
	h, err := ReadHistory(content)
	if err != nil {
		return nil, h, fmt.Errorf("%s: %w", name, err)
	}
	l := &Log{name: name, file: file, slots: uint64(slots), last: h.Last, buffer: buffer}
	// A crash may have cut off the zero after the last record.
	clear(buffer[:RecordSize])
	if err := l.write(slot(h.Last.Sequence+1, l.slots), buffer[:RecordSize]); err != nil {
		return nil, h, err
	}
	return l, h, nil
}

// Last is the newest record.
func (l *Log) Last() Record { return l.last }

// Append checks the file against the last record and writes the next one and
// the zero after it.
func (l *Log) Append(r Record) error {
	if err := l.Check(); err != nil {
		return err
	}
	at := slot(r.Sequence, l.slots)
	r.Append(l.buffer[:0])
	clear(l.buffer[RecordSize : 2*RecordSize])
	if err := l.write(at, l.buffer[:2*RecordSize]); err != nil {
		return err
	}
	l.before, l.last = l.last, r
	return nil
}

// Check reads the last two records and the place after them back from the disk, all
// at once where they are neighbours: each read costs a guest whose processor is
// translated a millisecond. The last one alone would not do: a write that was under
// way when the disk was exchanged lands on the other one.
func (l *Log) Check() error {
	if l.last.Sequence == 0 {
		return l.checkNext(slot(1, l.slots))
	}
	at, expected := slot(l.last.Sequence, l.slots), []Record{l.last}
	if at > 0 && l.before.Sequence > 0 {
		at, expected = at-1, []Record{l.before, l.last}
	}
	sectors := l.buffer[:min(uint64(len(expected))+1, l.slots-at)*RecordSize]
	if err := l.read(at, sectors); err != nil {
		return err
	}
	for _, r := range expected {
		if have := sectors[:RecordSize]; !bytes.Equal(have, r.Append(nil)) {
			return fmt.Errorf("%s and memory are of different instants: memory wrote record %d (counter %d), the disk holds %s",
				l.name, r.Sequence, r.Counter, describe(have))
		}
		sectors = sectors[RecordSize:]
	}
	if len(sectors) > 0 {
		return l.isFree(sectors)
	}
	return l.checkNext(0)
}

// checkNext reads the place after the last record.
func (l *Log) checkNext(at uint64) error {
	sector := l.buffer[:RecordSize]
	if err := l.read(at, sector); err != nil {
		return err
	}
	return l.isFree(sector)
}

// isFree says whether what stands after the last record is nothing.
func (l *Log) isFree(sector []byte) error {
	if !isZero(sector) {
		return fmt.Errorf("%s and memory are of different instants: after record %d (counter %d) the disk holds %s",
			l.name, l.last.Sequence, l.last.Counter, describe(sector))
	}
	return nil
}

func (l *Log) read(at uint64, sectors []byte) error {
	if _, err := l.file.ReadAt(sectors, int64(at*RecordSize)); err != nil {
		return fmt.Errorf("%s: read slot %d of the log: %w", l.name, at, err)
	}
	return nil
}

// write writes sectors from slot at on, going round at the end of the log.
func (l *Log) write(at uint64, sectors []byte) error {
	for len(sectors) > 0 {
		n := min(uint64(len(sectors)), (l.slots-at)*RecordSize)
		if _, err := l.file.WriteAt(sectors[:n], int64(at*RecordSize)); err != nil {
			return fmt.Errorf("%s: write slot %d of the log: %w", l.name, at, err)
		}
		sectors, at = sectors[n:], 0
	}
	return nil
}

func describe(sector []byte) string {
	if isZero(sector) {
		return "nothing"
	}
	r, err := ParseRecord(sector)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("record %d (counter %d, boot %d, token %v)", r.Sequence, r.Counter, r.Boot, r.Token)
}
