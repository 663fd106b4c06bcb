package memory

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// File is a RAM file that is written: the peer's copy. It is not mapped, so
// that a full tmpfs is an error and not a signal.
type File struct{ file *os.File }

// Create makes a new RAM file of size bytes, all holes. It must not exist.
func Create(path string, size int64) (*File, error) {
	if size <= 0 || size%PageSize != 0 {
		return nil, fmt.Errorf("create RAM file of %d bytes: not a whole number of pages: %w", size, ErrSize)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create RAM file: %w", err)
	}
	if err := file.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("size RAM file %s: %w", path, err), file.Close(), os.Remove(path))
	}
	return &File{file}, nil
}

// OpenFile opens a RAM file that must have size bytes.
func OpenFile(path string, size int64) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open RAM file: %w", err)
	}
	if err := checkSize(file, size); err != nil {
		file.Close()
		return nil, err
	}
	return &File{file}, nil
}

// ReadAt and WriteAt are the file's.
func (f *File) ReadAt(p []byte, off int64) (int, error)  { return f.file.ReadAt(p, off) }
func (f *File) WriteAt(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }

// Zero makes the bytes read as zeros and gives their memory back.
func (f *File) Zero(off, length int64) error {
	return allocate(f.file, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
}

// Reserve makes sure that a later WriteAt of these bytes finds memory. What
// they read as does not change.
func (f *File) Reserve(off, length int64) error { return allocate(f.file, 0, off, length) }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

func allocate(file *os.File, mode uint32, off, length int64) error {
	for {
		err := unix.Fallocate(int(file.Fd()), mode, off, length)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("fallocate %s, %d bytes at %d: %w", file.Name(), length, off, err)
		}
	}
}

// HashPages appends to dst the xxhash64 of each of n pages from page first on,
// read through the file, so that a hole stays a hole. Two ends that compare
// them learn which pages differ.
func HashPages(dst []uint64, image io.ReaderAt, first, n uint64) ([]uint64, error) {
	if first > (1<<62)/PageSize || n > (1<<62)/PageSize {
		return dst, fmt.Errorf("hash pages %d+%d: %w", first, n, ErrBounds)
	}
	buf := make([]byte, min(n, BlockPages)*PageSize)
	for n > 0 {
		part := buf[:min(n, BlockPages)*PageSize]
		if got, err := image.ReadAt(part, int64(first*PageSize)); got < len(part) {
			return dst, fmt.Errorf("hash pages %d+%d: %w (%w)", first, n, ErrBounds, err)
		}
		for off := 0; off < len(part); off += PageSize {
			dst = append(dst, xxhash.Sum64(part[off:off+PageSize]))
		}
		first, n = first+uint64(len(part))/PageSize, n-uint64(len(part))/PageSize
	}
	return dst, nil
}
