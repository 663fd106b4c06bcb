package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock held by another process is tried again.
const lockPoll = 20 * time.Millisecond

// openLocked opens the file, creating it first where there is none, and locks
// it. The lock belongs to the open file, so bbolt, given the same one, has it.
func openLocked(path string, timeout time.Duration) (*os.File, error) {
	deadline := time.Now().Add(timeout)
	for {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if err := create(path); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			continue
		} else if err != nil {
			return nil, err
		}
		same, err := lock(file, path, deadline)
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		if same {
			return file, nil
		}
		_ = file.Close()
	}
}

// lock waits for the lock. It reports whether path still names this file: it
// may have been replaced while we waited.
func lock(file *os.File, path string, deadline time.Time) (bool, error) {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return false, fmt.Errorf("lock %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("%s is %w: %s has it; stop that one first, or give this one a state directory of its own",
				path, ErrLocked, holder(file))
		}
		time.Sleep(lockPoll)
	}
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := file.Chmod(0o600); err != nil {
			return false, err
		}
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(info, now), nil
}

// release closes a file that bbolt may still have mapped: a mapping keeps the
// lock alive after the close.
func release(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}

// create makes a new, empty store and gives it its name only when it is
// complete on the disk: a file at path is never half made. An empty file at
// path is therefore damage, not a new store.
func create(path string) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, tempPattern(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create %s: directory %s does not exist, create it first: %w", path, dir, err)
	} else if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if err := errors.Join(temp.Close(), initialise(temp.Name())); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	// Link, not rename: the loser of a race must not replace the winner's file.
	err = os.Link(temp.Name(), path)
	if errors.Is(err, fs.ErrNotExist) {
		return fs.ErrExist // the winner has removed our temporary file
	} else if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return syncDir(dir)
}

func initialise(path string) error {
	b, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, Timeout: time.Second})
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bolt.Tx) error { return setVersion(tx, 0) })
	return errors.Join(err, b.Close())
}

// Temporary files are named after the file they become, in its directory.
func tempPattern(path string) string { return "." + filepath.Base(path) + ".*.tmp" }

// removeStale removes temporary files that a crash left beside path. Only the
// holder of the lock, or of the name, may call it.
func (db *DB) removeStale(path string) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+filepath.Base(path)+".") && strings.HasSuffix(e.Name(), ".tmp") {
			db.log.Info("store: removing a leftover of an earlier crash", "path", filepath.Join(dir, e.Name()))
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
