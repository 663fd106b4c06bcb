package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeRAM makes the guest's memory: a sparse file of zeroes. A file that is
// left over is unlinked, not emptied, for a QEMU that hangs in the kernel may
// still have it mapped.
func makeRAM(path string, size Size) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make guest memory: %w", err)
	}
	if err := removeFile(path); err != nil {
		return fmt.Errorf("make guest memory: %w", err)
	}
	// A guest that writes memory the file system has no room for dies at once
	// with SIGBUS, so it is better not started.
	if free, err := freeSpace(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make guest memory: %w", err)
	} else if free < size {
		return fmt.Errorf("make guest memory %s: %w: it needs %v, the file system has %v free", path, ErrNoRoom, size, free/MiB*MiB)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make guest memory: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(fmt.Errorf("make guest memory: %w", err), removeFile(path))
		}
	}()
	return file.Truncate(int64(size))
}

// checkRAM makes sure that the memory of a guest to be resumed is in place.
func checkRAM(path string, size Size) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("memory of the guest to be resumed: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != int64(size) {
		return fmt.Errorf("memory of the guest to be resumed: %s has %v, the guest has %v", path, Size(info.Size()), size)
	}
	return nil
}

func freeSpace(dir string) (Size, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return Size(stat.Bavail) * Size(stat.Bsize), nil
}

// removeFile is os.Remove that takes an absent file for removed.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
