package store

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of its own with little space.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("store-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes all space that is left.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	path := filepath.Join(dir, "test.db")
	db := openTest(t, path)
	// Write until it is full, many rows in a transaction, large and small.
	var before map[string]string
	var err error
	n := 0
	for ; err == nil; n++ {
		before = contents(t, db)
		err = db.Update(func(tx *Tx) error {
			for i := range 5 {
				if _, err := guests.Put(tx, fmt.Sprint(n, i), guest{Blob: make([]byte, 3000*i)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	wantErr(t, err, ErrFull, path, "nothing was stored")
	if n < 10 {
		t.Errorf("full after %d transactions", n)
	}
	for range 3 { // it stays full, readable and whole
		filler := fill(t, dir)
		if !reflect.DeepEqual(contents(t, db), before) {
			t.Fatal("the failed transaction is there, in part or whole")
		}
		if err := db.Check(); err != nil {
			t.Fatal(err)
		}
		wantErr(t, db.Update(change), ErrFull)
		wantErr(t, db.BackupTo(filepath.Join(dir, "backup")), ErrFull)
		_, err := Open(filepath.Join(dir, "new.db"), Options{})
		wantErr(t, err, ErrFull, "new.db")
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("left behind: %v (%v)", entries, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	// It opens on a full disk too, and goes on once there is space.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	filler := fill(t, dir)
	db = openTest(t, path)
	if !reflect.DeepEqual(contents(t, db), before) {
		t.Fatal("lost something")
	}
	_ = os.Remove(filler)
	if err := unix.Mount("store-test", dir, "tmpfs", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	update(t, db, change)
	if len(contents(t, db)) <= len(before) {
		t.Error("the change is not there")
	}
}

// An upgrade that cannot make its backup does not begin.
func TestFullDiskBeforeAMigration(t *testing.T) {
	dir := smallDisk(t, "1m")
	path := filepath.Join(dir, "test.db")
	db := openTest(t, path)
	put(t, db, "a", guest{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	filler := fill(t, dir)
	schema := []Migration{{"one", change}}
	_, err = Open(path, Options{Schema: schema})
	wantErr(t, err, ErrFull, "test.db.v0.bak")
	if after, err := os.ReadFile(path); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the file has changed (%v)", err)
	}
	_ = os.Remove(filler)
	openTest(t, path, schema...)
}
