package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Request is a disk to be made.
type Request struct {
	Path   string // where; must not exist
	Format string // raw or qcow2
	Size   int64  // bytes, a multiple of 512; 0 takes the size of Image

	// Image is copied into the new disk, with everything it is based on, so
	// that the disk depends on no other file. Empty makes an empty disk.
	Image       string
	ImageFormat string // as Info found it

	// Preallocate takes the space now instead of when the guest writes.
	Preallocate bool
}

// Create makes a disk: all of it, or nothing and an error. The file has mode
// 0600 and is on stable storage when Create returns.
func (t Tool) Create(ctx context.Context, r Request) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create disk %s: %w", r.Path, err)
		}
	}()
	if err := checkFormat(r.Format); err != nil {
		return err
	}
	if _, err := os.Lstat(r.Path); err == nil {
		return ErrExists
	}
	if r.Size < 0 || r.Size%512 != 0 || r.Size == 0 && r.Image == "" {
		return fmt.Errorf("size %d is not a positive multiple of 512", r.Size)
	}
	file, err := os.CreateTemp(filepath.Dir(r.Path), "."+filepath.Base(r.Path)+"-*.partial")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // a no-op once it has been renamed
	defer file.Close()
	if r.Image != "" {
		err = t.copyImage(ctx, r, file)
	} else {
		err = t.empty(ctx, r, file)
	}
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := renameNew(file.Name(), r.Path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(r.Path))
}

func (t Tool) empty(ctx context.Context, r Request, file *os.File) error {
	if r.Format == "qcow2" {
		preallocation := "off"
		if r.Preallocate {
			preallocation = "falloc"
		}
		_, _, err := t.run(ctx, "create", "-q", "-f", "qcow2", "-o", "preallocation="+preallocation,
			file.Name(), strconv.FormatInt(r.Size, 10))
		return err
	}
	return sizeRaw(r, file)
}

func sizeRaw(r Request, file *os.File) error {
	if err := file.Truncate(r.Size); errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, r.Size)
	} else if err != nil {
		return err
	}
	if !r.Preallocate {
		return nil
	}
	if err := unix.Fallocate(int(file.Fd()), 0, 0, r.Size); err != nil {
		return fmt.Errorf("take %d bytes of space: %w", r.Size, err)
	}
	return nil
}

func (t Tool) copyImage(ctx context.Context, r Request, file *os.File) error {
	source, err := t.Info(ctx, r.Image)
	if err != nil {
		return err
	}
	if r.Size != 0 && r.Size < source.VirtualSize {
		return fmt.Errorf("%w: image %s has %d bytes, the disk would have %d", ErrShrink, r.Image, source.VirtualSize, r.Size)
	}
	args := []string{"convert", "-q", "-f", r.ImageFormat, "-O", r.Format}
	if r.Preallocate {
		args = append(args, "-o", "preallocation=falloc")
	}
	if _, _, err := t.run(ctx, append(args, r.Image, file.Name())...); err != nil {
		return err
	}
	if r.Size <= source.VirtualSize {
		return nil
	}
	if r.Format == "raw" {
		return sizeRaw(r, file)
	}
	return t.grow(ctx, file.Name(), r.Format, r.Size, r.Preallocate)
}

// renameNew renames without ever replacing a file.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Not every file system knows the flag. A link fails likewise.
		err = os.Link(from, to)
	}
	if errors.Is(err, os.ErrExist) {
		return ErrExists
	}
	return err
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
