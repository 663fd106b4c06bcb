package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, filepath.Join(dir, "test.db"), step("1"))
	put(t, db, "a", guest{Name: "first"})
	path := filepath.Join(dir, "backup.db")
	for i := range 2 { // the second replaces the first
		if err := os.WriteFile(filepath.Join(dir, ".backup.db.1.tmp"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		put(t, db, "a", guest{Name: fmt.Sprint(i)})
		if err := db.BackupTo(path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v (%v)", info.Mode(), err)
		}
		back := openTest(t, path, step("1"))
		if got := get(t, back, "a"); got.Value.Name != fmt.Sprint(i) {
			t.Errorf("the backup holds %+v", got)
		}
		closeTest(t, back)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if err := db.BackupTo(db.Path()); err == nil {
		t.Error("a backup over the store itself")
	}
	if err := db.BackupTo(filepath.Join(dir, "missing", "x")); err == nil {
		t.Error("a backup into nowhere")
	}
}

// A copy taken while others write holds one state, and is a valid file.
func TestBackupWhileWriting(t *testing.T) {
	dir := memoryDir(t)
	db := openTest(t, filepath.Join(dir, "test.db"))
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			err := db.Update(func(tx *Tx) error {
				for _, key := range []string{"a", "b", "c"} {
					if _, err := guests.Put(tx, key, guest{CPUs: i, Blob: make([]byte, i*37%9000)}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 20 {
		var copied bytes.Buffer
		n, err := db.WriteTo(&copied)
		if err != nil || n != int64(copied.Len()) {
			t.Fatalf("%d of %d bytes (%v)", n, copied.Len(), err)
		}
		path := filepath.Join(dir, fmt.Sprint("copy", i))
		if err := os.WriteFile(path, copied.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		back := openTest(t, path)
		view(t, back, func(tx *Tx) error {
			rows, err := guests.List(tx, "")
			for _, r := range rows {
				if r.Value.CPUs != rows[0].Value.CPUs {
					t.Errorf("a mixed state: %d and %d", r.Value.CPUs, rows[0].Value.CPUs)
				}
			}
			return err
		})
		if err := back.Check(); err != nil {
			t.Error(err)
		}
		closeTest(t, back)
	}
	close(stop)
	writer.Wait()
}
