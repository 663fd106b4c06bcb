package store

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// Migration takes the file from one schema version to the next. It runs once
// per file, in one transaction together with the new version number, on new
// files too.
type Migration struct {
	Name string // for the log: "split node out of guest"
	Run  func(*Tx) error
}

// fileFormat is how this package lays out its buckets and records.
const fileFormat = 1

var (
	systemBucket = []byte("store")
	formatKey    = []byte("format")
	schemaKey    = []byte("schema")
)

// upgrade refuses a file of a newer version before anything is written, and
// runs the migrations an older one lacks, after a backup.
func (db *DB) upgrade(schema []Migration, current meta) error {
	version, empty, err := db.version()
	if err != nil {
		return err
	}
	if version > len(schema) {
		return fmt.Errorf("%s has %w: it is of version %d, this vmctl knows up to %d; install the vmctl that wrote it, "+
			"or go back to the backup %s", db.path, ErrSchema, version, len(schema), backupName(db.path, len(schema)))
	}
	if err := db.settle(current); err != nil {
		return err
	}
	if version == len(schema) {
		return nil
	}
	if !empty {
		if err := db.BackupTo(backupName(db.path, version)); err != nil {
			return fmt.Errorf("before the upgrade from version %d: %w", version, err)
		}
	}
	for ; version < len(schema); version++ {
		m := schema[version]
		err := db.Update(func(tx *Tx) error {
			if err := m.Run(tx); err != nil {
				return err
			}
			return setVersion(tx.bolt, version+1)
		})
		if err != nil {
			return fmt.Errorf("%s: migration %d (%s): %w; the file is unchanged since version %d", db.path, version+1, m.Name, err, version)
		}
		db.log.Info("store: migrated", "path", db.path, "version", version+1, "migration", m.Name)
	}
	return nil
}

func backupName(path string, version int) string { return fmt.Sprintf("%s.v%d.bak", path, version) }

// version reads the schema version of the file, and whether nothing was ever
// stored in it.
func (db *DB) version() (version int, empty bool, err error) {
	err = db.View(func(tx *Tx) error {
		b := tx.bolt.Bucket(systemBucket)
		if b == nil {
			return fmt.Errorf("%s: %w: it is a database of another program", db.path, ErrSchema)
		}
		format, err1 := strconv.Atoi(string(b.Get(formatKey)))
		number, err2 := strconv.Atoi(string(b.Get(schemaKey)))
		if err := errors.Join(err1, err2); err != nil || number < 0 {
			return corrupt(db.path, "its version cannot be read (%v)", err)
		}
		if format != fileFormat {
			return fmt.Errorf("%s has %w: its file format is %d, this vmctl knows %d; install the vmctl that wrote it",
				db.path, ErrSchema, format, fileFormat)
		}
		version, empty = number, true
		return tx.bolt.ForEach(func(bucket []byte, _ *bolt.Bucket) error {
			empty = empty && bytes.Equal(bucket, systemBucket)
			return nil
		})
	})
	return version, empty, err
}

func setVersion(tx *bolt.Tx, version int) error {
	b, err := tx.CreateBucketIfNotExists(systemBucket)
	if err != nil {
		return err
	}
	if err := b.Put(formatKey, []byte(strconv.Itoa(fileFormat))); err != nil {
		return err
	}
	return b.Put(schemaKey, []byte(strconv.Itoa(version)))
}

// settle makes the state we see the state on the disk. A process killed, or
// told of an I/O error, between the write of its meta page and the end of its
// sync leaves a state that is only in the page cache. The first commit after
// that reuses pages of the state before, which may be the one on the disk. The
// page is written again and not only synced: after a failed sync the kernel
// calls it clean.
func (db *DB) settle(current meta) error {
	page := make([]byte, pageSize)
	offset := int64(current.slot) * pageSize
	if _, err := db.file.ReadAt(page, offset); err != nil {
		return err
	}
	if _, err := db.file.WriteAt(page, offset); err != nil {
		return explainFull(err, db.path)
	}
	if err := db.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w, check the disk", db.path, err)
	}
	return nil
}
