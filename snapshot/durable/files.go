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
	Path   string // as it was opened, if the file has another name by now
	File   *File  // nil: a change of names only
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
	file := &File{files: f}
	if f.Watch != nil && flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		change := Change{Kind: Create, Path: path, File: file}
		if _, err := os.Stat(path); err == nil {
			change.Kind = Truncate
		}
		if change.Kind == Create || flag&os.O_TRUNC != 0 {
			if err := f.ask(change); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if file.File, err = os.OpenFile(path, os.O_RDWR|flag, 0o600); err != nil {
		return nil, err
	}
	return file, nil
}

// Place makes the file at path, or replaces it: it has what fill writes, or is not
// there and nothing is left of it. With fill syncing it that holds in a power cut;
// its name is durable after SyncDir. The caller closes the file.
func (f Files) Place(path string, fill func(*File) error) (*File, error) {
	temporary := path + TemporarySuffix
	file, err := f.Open(temporary, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	if err = fill(file); err == nil {
		err = f.Rename(temporary, path)
	}
	if err != nil { // a disk without room, say, which its remains would make fuller
		return nil, errors.Join(err, file.Close(), f.Remove(temporary))
	}
	return file, nil
}

// TemporarySuffix ends the names of files that Place has not finished. A power cut
// leaves them: who owns the directory removes them.
const TemporarySuffix = ".tmp"

// MakeDir makes a directory and those it is in, as far as they are not there,
// durably.
func (f Files) MakeDir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := f.MakeDir(parent); err != nil {
			return err
		}
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
