package video

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"vmctl/vm/qmp"
)

const (
	page = 4096
	// window is how much is read of QEMU at once, in bytes.
	window = 1 << 20
	// Bits of an entry of /proc/PID/pagemap.
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
)

// Mirror copies the memory of a running guest's screen behind its RAM. Not for
// use by several goroutines at once.
type Mirror struct {
	process *os.File // its memory
	pagemap *os.File
	address uint64 // in the process
	file    *os.File
	offset  int64
	have    []byte // what the file has from offset on
	read    []byte
}

// Open finds the memory of a VGA, size bytes, in the process that answers c, and
// joins it to the memory file, which has that much behind offset. ErrHidden is
// for now only.
func Open(ctx context.Context, c qmp.Executor, pid int, device, file string, offset, size int64) (_ *Mirror, err error) {
	m := &Mirror{offset: offset, have: make([]byte, size), read: make([]byte, window)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	// Before QEMU is asked: if it answers then, this is its memory and not that of
	// a later process with its number.
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if m.process, err = os.Open(filepath.Join(proc, "mem")); err != nil {
		return nil, fmt.Errorf("copy the screen's memory: %w", err)
	}
	if m.pagemap, err = os.Open(filepath.Join(proc, "pagemap")); err != nil {
		return nil, fmt.Errorf("copy the screen's memory: %w", err)
	}
	if m.address, err = find(ctx, c, device, size); err != nil {
		return nil, err
	}
	if m.file, err = os.OpenFile(file, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("copy the screen's memory: %w", err)
	}
	if _, err := io.ReadFull(io.NewSectionReader(m.file, offset, size), m.have); err != nil {
		return nil, fmt.Errorf("copy the screen's memory: read the last copy: %w", err)
	}
	return m, nil
}

// Refresh makes the copy what the screen's memory is. The guest must stand still
// until it returns.
func (m *Mirror) Refresh() error {
	for at := 0; at < len(m.have); at += window {
		if err := m.part(at, min(at+window, len(m.have))); err != nil {
			return fmt.Errorf("copy the screen's memory: %w", err)
		}
	}
	return nil
}

func (m *Mirror) part(from, to int) error {
	known := make([]byte, (to-from)/page*8)
	if _, err := m.pagemap.ReadAt(known, int64((m.address+uint64(from))/page*8)); err != nil {
		return err
	}
	read := m.read[:to-from]
	// Pages that were never touched are zero, and stay untouched.
	for first := 0; first < len(read); {
		present := there(known, first)
		last := first + page
		for last < len(read) && there(known, last) == present {
			last += page
		}
		if !present {
			clear(read[first:last])
		} else if _, err := m.process.ReadAt(read[first:last], int64(m.address)+int64(from+first)); err != nil {
			return err
		}
		first = last
	}
	for off := 0; off < len(read); off += page {
		now, was := read[off:off+page], m.have[from+off:from+off+page]
		if bytes.Equal(now, was) {
			continue
		}
		if _, err := m.file.WriteAt(now, m.offset+int64(from+off)); err != nil {
			return err
		}
		copy(was, now)
	}
	return nil
}

// there says whether a page has memory, by the entries of its part.
func there(entries []byte, offset int) bool {
	return binary.LittleEndian.Uint64(entries[offset/page*8:])&(pagePresent|pageSwapped) != 0
}

// Close lets go of the files; the copy stays.
func (m *Mirror) Close() (err error) {
	for _, f := range []*os.File{m.process, m.pagemap, m.file} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Read gives the copy behind offset in a memory file.
func Read(file string, offset, size int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the screen's memory: %w", err)
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, size), data); err != nil {
		return nil, fmt.Errorf("read the screen's memory: %w", err)
	}
	return data, nil
}
