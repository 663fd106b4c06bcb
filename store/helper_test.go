package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guest stands for a record of another package.
type guest struct {
	Name  string
	CPUs  int
	Disks []string
	Notes map[string]string
	Blob  []byte
}

var guests = NewTable[guest]("guests")

func TestMain(m *testing.M) {
	if path := os.Getenv(crashChildEnv); path != "" {
		crashChild(path)
	}
	os.Exit(m.Run())
}

// openTest opens a store; the test ends in a full check of it.
func openTest(t *testing.T, path string, schema ...Migration) *DB {
	t.Helper()
	db, err := Open(path, Options{Schema: schema, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Check(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("check at the end of the test: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newTest(t *testing.T) *DB {
	t.Helper()
	return openTest(t, filepath.Join(t.TempDir(), "test.db"))
}

func update(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.View(fn); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, db *DB, key string, g guest) (revision uint64) {
	t.Helper()
	update(t, db, func(tx *Tx) (err error) {
		revision, err = guests.Put(tx, key, g)
		return err
	})
	return revision
}

func get(t *testing.T, db *DB, key string) (row Row[guest]) {
	t.Helper()
	view(t, db, func(tx *Tx) (err error) {
		row, err = guests.Get(tx, key)
		return err
	})
	return row
}

// wantErr checks the sentinel and that the message says all the given things.
func wantErr(t *testing.T, err, want error, says ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

// sweep removes the directories of test processes that were killed.
func sweep() {
	left, _ := filepath.Glob("/dev/shm/store-test-*-*")
	for _, dir := range left {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "store-test-%d-", &pid); err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			_ = os.RemoveAll(dir)
		}
	}
}

// memoryDir is a directory where syncs cost nothing, for tests that open
// thousands of files and do not test syncs.
func memoryDir(t testing.TB) string {
	t.Helper()
	sweep()
	dir, err := os.MkdirTemp("/dev/shm", fmt.Sprintf("store-test-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
