package durable

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File is an open file whose changes pass Files.
type File struct {
	*os.File
	files Files
}

func (f *File) Write(p []byte) (int, error) {
	if f.files.Watch == nil {
		return f.File.Write(p)
	}
	at, err := f.File.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if err := f.files.ask(Change{Kind: Write, Path: f.Name(), File: f, Offset: at, Data: p}); err != nil {
		if errors.Is(err, ErrTorn) {
			_, _ = f.File.Write(p[:Half(p)])
		}
		return 0, err
	}
	return f.File.Write(p)
}

// WriteAt writes all of p at off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.files.ask(Change{Kind: Write, Path: f.Name(), File: f, Offset: off, Data: p}); err != nil {
		if errors.Is(err, ErrTorn) {
			_, _ = f.File.WriteAt(p[:Half(p)], off)
		}
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

// Half is how much of p a torn write makes: half of it, and of whole sectors
// half of the sectors.
func Half(p []byte) int {
	half := len(p) / 2
	if len(p)%512 == 0 {
		half -= half % 512
	}
	return half
}

// Truncate sets the file's length.
func (f *File) Truncate(length int64) error {
	if err := f.files.ask(Change{Kind: Truncate, Path: f.Name(), File: f, Offset: length}); err != nil {
		return err
	}
	return f.File.Truncate(length)
}

// Sync makes content and length durable; the name is SyncDir's business.
func (f *File) Sync() error {
	if err := f.files.ask(Change{Kind: Sync, Path: f.Name(), File: f}); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData is Sync without times and other facts that no reading needs.
func (f *File) SyncData() error {
	if err := f.files.ask(Change{Kind: Sync, Path: f.Name(), File: f}); err != nil {
		return err
	}
	return f.Control(unix.Fdatasync)
}

// Punch makes a range a hole; EOPNOTSUPP where the file system has none.
func (f *File) Punch(off, length int64) error {
	if err := f.files.ask(Change{Kind: Punch, Path: f.Name(), File: f, Offset: off, Length: length}); err != nil {
		return err
	}
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return f.Control(func(fd int) error { return unix.Fallocate(fd, punch, off, length) })
}

// Control makes a system call on the file's descriptor, which cannot be closed,
// and be another file's, meanwhile. It is repeated when a signal interrupts it.
func (f *File) Control(call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for failed = unix.EINTR; errors.Is(failed, unix.EINTR); {
			failed = call(int(fd))
		}
	})
	return errors.Join(err, failed)
}
