package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vmctl/snapshot/durable"

	"golang.org/x/sys/unix"
)

var (
	// ErrClosed means that the disk was closed.
	ErrClosed = errors.New("disk is closed")
	// ErrRange means an access outside of the image.
	ErrRange = errors.New("outside of the disk")
	// ErrSize means that an image of another size is there.
	ErrSize = errors.New("disk has another size")
	// ErrInUse means that another Disk has the image open.
	ErrInUse = errors.New("disk is in use")
	// ErrMarker means a marker that is not newer than the last one, or one to
	// roll back to that is not there.
	ErrMarker = errors.New("no such marker")
	// ErrDamaged means that an undo segment cannot be read in full. The image
	// can no longer be rolled back past it: compare it against the other side.
	ErrDamaged = errors.New("undo segment is damaged")
)

// Disk is an image and its undo segments. Methods may be called from many
// goroutines; overlapping writes land in the order in which they get the lock.
type Disk struct {
	path  string
	size  int64
	files durable.Files

	mu       sync.Mutex // orders log before data, and writes among themselves
	image    *durable.File
	segments []*segment // oldest first; the last one takes records
	held     *segment   // nil: no Hold
	scratch  []byte
	closed   bool
	fresh    bool

	syncing sync.Mutex // one Sync at a time, without holding up writes
	// reading is held by reads: a file is closed, and its lock let go, only when
	// the last call that uses it returns.
	reading sync.RWMutex
}

// Open opens the image at path, or makes a sparse one of size bytes, and its
// undo segments. It locks the image against a second Disk.
func Open(path string, size int64) (*Disk, error) {
	return OpenWith(durable.Files{}, path, size)
}

// OpenWith is Open with every change passing files.
func OpenWith(files durable.Files, path string, size int64) (*Disk, error) {
	d := &Disk{path: path, size: size, files: files}
	if err := d.open(); err != nil {
		d.release()
		return nil, fmt.Errorf("open replica disk %s: %w", path, err)
	}
	return d, nil
}

func (d *Disk) open() error {
	var err error
	if d.image, err = d.files.Open(d.path, os.O_CREATE); err != nil {
		return err
	}
	if err := unix.Flock(int(d.image.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w (%w)", ErrInUse, err)
	}
	info, err := d.image.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
	}
	switch info.Size() {
	case d.size:
	case 0:
		d.fresh = true
		if err := d.image.Truncate(d.size); err != nil {
			return err
		}
		if err := errors.Join(d.image.Sync(), d.files.SyncDir(filepath.Dir(d.path))); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: %d bytes, want %d", ErrSize, info.Size(), d.size)
	}
	if err := d.files.MakeDir(d.undoPath()); err != nil {
		return err
	}
	return d.loadSegments()
}

func (d *Disk) undoPath() string { return d.path + ".undo" }

// Fresh says that Open made the image.
func (d *Disk) Fresh() bool { return d.fresh }

// Size is the length of the image in bytes.
func (d *Disk) Size() int64 { return d.size }

// Written is when the image was written to at last.
func (d *Disk) Written() (time.Time, error) {
	info, err := os.Stat(d.path)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the age of a replica's disk: %w", err)
	}
	return info.ModTime(), nil
}

// Room is how many bytes are free, and how many there are, where the disk is.
func (d *Disk) Room() (free, all uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.path, &s); err != nil {
		return 0, 0, fmt.Errorf("look at the room for %s: %w", d.path, err)
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// ReadAt fills p from off with what is in the image now. It does not wait for
// writes; one that happens meanwhile may be seen in part.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.inside(off, int64(len(p))); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	d.reading.RLock()
	n, err := d.image.ReadAt(p, off)
	d.reading.RUnlock()
	if err != nil {
		return n, fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, d.path, err)
	}
	return n, nil
}

// WriteAt stores p at off; what it overwrites for the first time since the last
// marker is logged first. On an error the range may be written in part, and is
// logged.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.inside(off, int64(len(p))); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.preserve(off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.image.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %d bytes at %d of %s: %w", len(p), off, d.path, err)
	}
	return n, nil
}

// Zero makes [off, off+length) read as zeroes and frees its space.
func (d *Disk) Zero(off, length int64) error {
	if err := d.inside(off, length); err != nil {
		return fmt.Errorf("zero: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.preserve(off, length); err != nil {
		return err
	}
	return d.zero(off, length)
}

// zero is Zero without the log; d.mu is held.
func (d *Disk) zero(off, length int64) error {
	if length == 0 {
		return nil
	}
	err := d.image.Punch(off, length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		blank := make([]byte, min(length, maxRecord))
		for err = nil; length > 0 && err == nil; {
			part := blank[:min(length, int64(len(blank)))]
			_, err = d.image.WriteAt(part, off)
			off, length = off+int64(len(part)), length-int64(len(part))
		}
	}
	if err != nil {
		return fmt.Errorf("zero %d bytes at %d of %s: %w", length, off, d.path, err)
	}
	return nil
}

func (d *Disk) inside(off, length int64) error {
	if off < 0 || length < 0 || off > d.size || length > d.size-off {
		return fmt.Errorf("%d bytes at %d of %s (%d bytes): %w", length, off, d.path, d.size, ErrRange)
	}
	return nil
}

// Sync makes everything written before the call durable: the undo log first,
// then the data. Writes go on meanwhile.
func (d *Disk) Sync() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	if err := d.syncLog(); err != nil {
		return err
	}
	if err := d.image.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}

// SyncLog makes the undo log of everything written before the call durable. To
// be called before a Rollback that has to survive a power cut.
func (d *Disk) SyncLog() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	return d.syncLog()
}

// syncLog is SyncLog; d.syncing is held.
func (d *Disk) syncLog() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return fmt.Errorf("sync %s: %w", d.path, ErrClosed)
	}
	var logs []*segment
	for _, s := range d.segments {
		if s.unsynced {
			s.unsynced = false
			logs = append(logs, s)
		}
	}
	d.mu.Unlock()
	for _, s := range logs {
		if err := s.file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // closed: dropped meanwhile
			d.mu.Lock()
			s.unsynced = true
			d.mu.Unlock()
			return fmt.Errorf("sync undo segment %d of %s: %w", s.sequence, d.path, err)
		}
	}
	if len(logs) == 0 {
		return nil
	}
	if err := d.files.SyncDir(d.undoPath()); err != nil {
		return fmt.Errorf("sync undo directory of %s: %w", d.path, err)
	}
	return nil
}

// Close closes image and segments without syncing them: when it returns, another
// Open succeeds. A second Close is nil.
func (d *Disk) Close() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.reading.Lock()
	defer d.reading.Unlock()
	return d.release()
}

func (d *Disk) release() error {
	var all []error
	for _, s := range d.segments {
		all = append(all, s.file.Close())
	}
	if d.held != nil {
		all = append(all, d.held.file.Close())
	}
	if d.image != nil {
		all = append(all, d.image.Close())
	}
	return errors.Join(all...)
}
