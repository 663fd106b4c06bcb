package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Kind is a kind of change.
type Kind string

// The kinds of changes.
const (
	Create   Kind = "create"
	Mkdir    Kind = "mkdir"
	Write    Kind = "write"
	Punch    Kind = "punch"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	SyncDir  Kind = "syncdir"
)

// Change is one change of a file or of a directory's names.
type Change struct {
	Kind   Kind
	Path   string
	To     string // of a Rename
	Offset int64  // of a Write or Punch; of a Truncate the new length
	Length int64  // of a Punch
	Data   []byte // of a Write; the watcher's only during the call
}

// ErrTorn, from Watch, makes a Write stop half-way.
var ErrTorn = errors.New("torn write")

// Files makes changes. The zero value is good. Watch is nil outside of tests; its
// error is the change's.
type Files struct {
	Watch func(Change) error
}

func (f Files) ask(c Change) error {
	if f.Watch == nil {
		return nil
	}
	return f.Watch(c)
}

// Open opens a file to read and write. With O_CREATE in flag it is made if it is
// not there; its name is durable after SyncDir.
func (f Files) Open(path string, flag int) (*File, error) {
	if f.Watch != nil && flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		change := Change{Kind: Create, Path: path}
		if _, err := os.Stat(path); err == nil {
			change.Kind = Truncate
		}
		if change.Kind == Create || flag&os.O_TRUNC != 0 {
			if err := f.ask(change); err != nil {
				return nil, err
			}
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{file, f}, nil
}

// MakeDir makes a directory that is not there, durably. The one that it is in
// must be.
func (f Files) MakeDir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := f.ask(Change{Kind: Mkdir, Path: path}); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.SyncDir(filepath.Dir(path))
}

// Rename gives a file another name, which a SyncDir makes durable.
func (f Files) Rename(from, to string) error {
	if err := f.ask(Change{Kind: Rename, Path: from, To: to}); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Remove removes a file.
func (f Files) Remove(path string) error {
	if err := f.ask(Change{Kind: Remove, Path: path}); err != nil {
		return err
	}
	return os.Remove(path)
}

// SyncDir makes the names in a directory durable.
func (f Files) SyncDir(path string) error {
	if err := f.ask(Change{Kind: SyncDir, Path: path}); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Replace gives the file at path new content: the old or the new is there
// whatever happens, and the new one for good once it returns nil. renamed says
// that the new one may be there although there was an error.
func (f Files) Replace(path string, content []byte) (renamed bool, err error) {
	file, err := f.Open(path+".tmp", os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return false, err
	}
	if _, err = file.Write(content); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return false, err
	}
	if err := f.Rename(path+".tmp", path); err != nil {
		return false, err
	}
	return true, f.SyncDir(filepath.Dir(path))
}
