package store

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func TestOpenMakesAPrivateFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	db := openTest(t, path)
	put(t, db, "a", guest{Name: "a"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		leftover := filepath.Join(dir, ".test.db.123.tmp")
		if err := os.WriteFile(leftover, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		db := openTest(t, path)
		if get(t, db, "a").Value.Name != "a" || db.Path() != path {
			t.Error("not what was stored")
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v (%v)", info.Mode(), err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenElsewhere(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "missing", "test.db"), Options{})
	wantErr(t, err, fs.ErrNotExist, filepath.Join(dir, "missing"), "create it first")
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a directory was opened")
	}
	pipe := filepath.Join(dir, "other.db")
	b, err := bolt.Open(pipe, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(pipe, Options{})
	wantErr(t, err, ErrSchema, "another program")
}

func TestASecondOpenerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	first := openTest(t, path)
	begin := time.Now()
	_, err := Open(path, Options{LockTimeout: -1})
	wantErr(t, err, ErrLocked, path, "vmctl process", fmt.Sprint("pid ", os.Getpid()), "stop that one")
	_, err = Open(path, Options{LockTimeout: 60 * time.Millisecond})
	wantErr(t, err, ErrLocked)
	if took := time.Since(begin); took < 60*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	// The one who waits gets it when the other ends.
	opened := make(chan error)
	go func() {
		db, err := Open(path, Options{LockTimeout: 30 * time.Second})
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestHolder(t *testing.T) {
	const locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:42 0 EOF\n2: FLOCK  ADVISORY  WRITE -1 fe:00:42 0 EOF\n" +
		"2: -> FLOCK  ADVISORY  WRITE 8 fe:00:42 0 EOF\nrubbish\n3: FLOCK  ADVISORY  WRITE 9 fe:00:42 0 EOF\n"
	for id, want := range map[string]string{"fe:00:42": "9", "fe:00:4": "", "": ""} {
		if got := holderIn(bufio.NewScanner(strings.NewReader(locks)), id); got != want {
			t.Errorf("%q is held by %q, want %q", id, got, want)
		}
	}
}

// Many processes may begin at once on a new file: all get the same one.
func TestConcurrentCreation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			db, err := Open(path, Options{LockTimeout: 30 * time.Second, Schema: []Migration{{"add", func(tx *Tx) error {
				_, err := guests.Create(tx, "by migration", guest{})
				return err
			}}}})
			if err != nil {
				t.Error(err)
				return
			}
			err = db.Update(func(tx *Tx) error { _, err := guests.Create(tx, fmt.Sprint(i), guest{}); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	db := openTest(t, path, Migration{"add", nil})
	if n := len(contents(t, db)); n != 9 {
		t.Errorf("%d rows, want 9", n)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// Readers and writers at once, across several growths of the file.
func TestConcurrency(t *testing.T) {
	db := openTest(t, filepath.Join(memoryDir(t), "test.db"))
	counter := NewTable[int]("counter")
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 25 {
				err := db.Update(func(tx *Tx) error {
					row, err := counter.Get(tx, "n")
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					_, err1 := counter.PutIf(tx, "n", row.Value+1, row.Revision)
					_, err2 := guests.Put(tx, fmt.Sprint(w, i), guest{Blob: make([]byte, 20000)})
					return errors.Join(err1, err2)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 25 {
				err := db.View(func(tx *Tx) error {
					rows, err := guests.List(tx, "")
					row, err2 := counter.Get(tx, "n")
					if len(rows) != row.Value {
						t.Errorf("saw %d rows and a count of %d", len(rows), row.Value)
					}
					if errors.Is(err2, ErrNotFound) {
						err2 = nil
					}
					return errors.Join(err, err2)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 5 {
			if err := db.Check(); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	view(t, db, func(tx *Tx) error {
		if row, err := counter.Get(tx, "n"); err != nil || row.Value != 100 {
			t.Errorf("counted %d (%v)", row.Value, err)
		}
		return nil
	})
}
