package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteTo writes one consistent state of the whole file, itself a valid store
// file, to w while the DB is in use. A slow w holds back the reuse of pages,
// never other transactions.
func (db *DB) WriteTo(w io.Writer) (n int64, err error) {
	err = db.View(func(tx *Tx) error {
		n, err = tx.bolt.WriteTo(w)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("copy store %s: %w", db.path, err)
	}
	return n, nil
}

// BackupTo writes such a copy to a file (mode 0600), replacing one that is
// there. The name appears only when the copy is complete, read back and on the
// disk.
func (db *DB) BackupTo(path string) error {
	db.backups.Lock()
	defer db.backups.Unlock()
	if err := db.backup(path); err != nil {
		return fmt.Errorf("back up store %s to %s: %w", db.path, path, explainFull(err, path))
	}
	return nil
}

func (db *DB) backup(path string) (err error) {
	if here, err := db.file.Stat(); err != nil {
		return err
	} else if there, err := os.Stat(path); err == nil && os.SameFile(here, there) {
		return errors.New("that is the store itself, choose another file")
	}
	db.removeStale(path)
	temp, err := os.CreateTemp(filepath.Dir(path), tempPattern(path))
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, temp.Close())
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err := db.WriteTo(temp); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if _, err := verifyFile(temp); err != nil {
		return fmt.Errorf("the copy does not read back: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
