package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// step is a migration that adds a row named after it.
func step(name string) Migration {
	return Migration{name, func(tx *Tx) error {
		_, err := guests.Create(tx, name, guest{Name: name})
		return err
	}}
}

func closeTest(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, db *DB) string {
	t.Helper()
	var all []string
	view(t, db, func(tx *Tx) error {
		rows, err := guests.List(tx, "")
		for _, r := range rows {
			all = append(all, r.Key)
		}
		return err
	})
	return strings.Join(all, " ")
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openTest(t, path, step("1"))
	put(t, db, "own", guest{})
	closeTest(t, db)
	if exists(path + ".v0.bak") {
		t.Error("a backup of a new file")
	}

	// Two more: each runs once, in order, after one backup.
	for range 2 {
		db = openTest(t, path, step("1"), step("2"), step("3"))
		if got := keys(t, db); got != "1 2 3 own" {
			t.Errorf("rows %s", got)
		}
		closeTest(t, db)
	}
	if !exists(path+".v1.bak") || exists(path+".v2.bak") || exists(path+".v3.bak") {
		t.Error("not the one backup of version 1")
	}
	back := openTest(t, path+".v1.bak", step("1"))
	if got := keys(t, back); got != "1 own" {
		t.Errorf("rows of the backup: %s", got)
	}
}

func TestAFailedMigrationChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	closeTest(t, openTest(t, path, step("1")))
	boom := errors.New("boom")
	bad := Migration{"spoil", func(tx *Tx) error { return errors.Join(guests.Delete(tx, "1"), boom) }}
	_, err := Open(path, Options{Schema: []Migration{step("1"), step("2"), bad}})
	wantErr(t, err, boom, "migration 3", "spoil", "version 2", path)
	// The file is free again, at the version of the last good one.
	db := openTest(t, path, step("1"), step("2"))
	if got := keys(t, db); got != "1 2" {
		t.Errorf("rows %s", got)
	}
	closeTest(t, db)
	db = openTest(t, path, step("1"), step("2"), step("3"))
	if !exists(path + ".v2.bak") {
		t.Error("no backup of version 2")
	}
	if got := keys(t, db); got != "1 2 3" {
		t.Errorf("rows %s", got)
	}
}

func TestANewerFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	closeTest(t, openTest(t, path, step("1"), step("2"), step("3")))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, _ := os.Stat(path)
	_, err = Open(path, Options{Schema: []Migration{step("1")}})
	wantErr(t, err, ErrSchema, path, "version 3", "up to 1", "test.db.v1.bak")
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed (%v)", err)
	}
	if now, _ := os.Stat(path); now.ModTime() != stat.ModTime() {
		t.Error("the file was written to")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	openTest(t, path, step("1"), step("2"), step("3"))
}

func TestANewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openTest(t, path)
	update(t, db, func(tx *Tx) error { return tx.bolt.Bucket(systemBucket).Put(formatKey, []byte("2")) })
	closeTest(t, db)
	_, err := Open(path, Options{})
	wantErr(t, err, ErrSchema, "file format is 2")
}
