package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sync makes an image durable, its size too, also one that a guest has open: what
// QEMU has written to the file is.
func Sync(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("make disk durable: %w", err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("make disk %s durable: %w", path, err)
	}
	return nil
}

// Reserve takes the space that a raw image will need for bytes [from, to), and
// leaves its size as it is.
func Reserve(path string, from, to int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("take space for disk: %w", err)
	}
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("take %d bytes of space for disk %s: %w", to-from, path, err)
	}
	return nil
}

// Takes is ErrTooLarge if the file system of an image takes no file of size bytes,
// however much room it has. A file system that cannot be asked without a trace has
// no objection.
func Takes(path string, size int64) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	file, err := os.OpenFile(filepath.Dir(real), unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return nil
	}
	defer file.Close()
	if errors.Is(file.Truncate(size), unix.EFBIG) {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	return nil
}

// Total is how large the tmpfs of a file or directory is. One without a bound of its
// own, and any other file system, is an error.
func Total(path string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, fmt.Errorf("look at the size of the file system of %s: %w", path, err)
	}
	if stat.Type != unix.TMPFS_MAGIC || stat.Blocks == 0 {
		return 0, fmt.Errorf("look at the size of the file system of %s: it is no tmpfs, or has no bound", path)
	}
	return int64(stat.Blocks) * stat.Bsize, nil
}

// Free is how many bytes are free on the file system of a file or directory.
func Free(path string) (int64, error) {
	free, _, err := Space(path)
	return free, err
}

// Space is how many bytes are free there, and how many there are.
func Space(path string) (free, total int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, 0, fmt.Errorf("look at the room for %s: %w", path, err)
	}
	return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
}
