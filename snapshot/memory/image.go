package memory

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// PageSize is the unit of comparison, in bytes.
const PageSize = 4096

// BlockPages is the number of pages in a block: the unit of work, of holes and
// of a chunk's payload (256 KiB). It is 64 so that the pages of a block are
// one word of a Delta and two threads never share a word.
const (
	BlockPages = 64
	BlockSize  = BlockPages * PageSize
)

// Errors of images.
var (
	ErrSize  = errors.New("RAM file has the wrong size")
	ErrFault = errors.New("RAM file was cut short while it was read")
)

// Image is the RAM of a running guest, mapped read-only.
type Image struct {
	path  string
	file  *os.File
	data  []byte
	holes bool // the file system tells holes reliably
}

// Open maps the RAM file of a guest. Its size must be size bytes, a multiple
// of the page size.
func Open(path string, size int64) (*Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open guest RAM: %w", err)
	}
	if err := checkSize(file, size); err != nil {
		file.Close()
		return nil, err
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("map guest RAM %s (%d bytes): %w", path, size, err)
	}
	return &Image{path: path, file: file, data: data, holes: onTmpfs(file)}, nil
}

// Pages is the number of pages.
func (m *Image) Pages() uint64 { return uint64(len(m.data)) / PageSize }

// Size is the number of bytes.
func (m *Image) Size() int64 { return int64(len(m.data)) }

// Path is the file's name at the time of Open.
func (m *Image) Path() string { return m.path }

// ReadAt reads through the file, not the mapping: holes stay holes.
func (m *Image) ReadAt(p []byte, off int64) (int, error) { return m.file.ReadAt(p, off) }

// Close unmaps. No Scan may be under way.
func (m *Image) Close() error {
	err := unix.Munmap(m.data)
	m.data = nil
	return errors.Join(err, m.file.Close())
}

// checkSize compares a file's size with what the guest's spec says.
func checkSize(file *os.File, size int64) error {
	if size <= 0 || size%PageSize != 0 {
		return fmt.Errorf("guest RAM of %d bytes is not a whole number of pages: %w", size, ErrSize)
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("stat guest RAM: %w", err)
	}
	if info.Size() != size {
		return fmt.Errorf("RAM file %s has %d bytes, the guest has %d: %w", file.Name(), info.Size(), size, ErrSize)
	}
	return nil
}

// onTmpfs: there a hole is a page that was never written or was punched out,
// and reads as zeros. Other file systems are not trusted with that question.
func onTmpfs(file *os.File) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(file.Fd()), &fs) == nil && int64(fs.Type) == unix.TMPFS_MAGIC
}

// nextData returns the first block at or after block that has memory behind
// it, a very large number if none has.
func (m *Image) nextData(block uint64) (uint64, error) {
	if !m.holes {
		return block, nil
	}
	start, err := unix.Seek(int(m.file.Fd()), int64(block*BlockSize), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return math.MaxUint64, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for holes in %s: %w", m.path, err)
	}
	return uint64(start) / BlockSize, nil
}

// Allocated is how many bytes of memory (or disk) a file occupies.
func Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Blocks * 512, nil
}
