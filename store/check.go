package store

import (
	"bytes"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// maxFindings bounds the errors Check reports: one bad page can cause many.
const maxFindings = 20

// Check reads the whole file and returns ErrCorrupt with what it finds: the
// structure of every page, bbolt's own consistency check, and the checksum of
// every record. Writers wait meanwhile.
func (db *DB) Check() (err error) {
	if why := db.broken.Load(); why != nil && errors.Is(*why, ErrCorrupt) {
		return *why
	}
	defer db.recoverDamage(&err, anyPanic)()
	// A writable transaction, never committed: bbolt's check needs writers out.
	return db.begin(true, func(tx *Tx) error {
		// Ours first: bbolt's cannot be run on a damaged structure without
		// risking the process.
		if _, err := verifyFile(db.file); err != nil {
			return corrupt(db.path, "%v", err)
		}
		var found []error
		for e := range tx.bolt.Check() {
			found = append(found, e)
		}
		found = append(found, checkRecords(tx.bolt)...)
		if len(found) == 0 {
			return nil
		}
		if len(found) > maxFindings {
			found = append(found[:maxFindings:maxFindings], fmt.Errorf("and %d more", len(found)-maxFindings))
		}
		return corrupt(db.path, "%v", errors.Join(found...))
	})
}

func checkRecords(tx *bolt.Tx) (found []error) {
	_ = tx.ForEach(func(bucket []byte, b *bolt.Bucket) error {
		if bytes.Equal(bucket, systemBucket) {
			return nil
		}
		return b.ForEach(func(key, raw []byte) error {
			if _, err := decodeRecord(bucket, key, raw, nil); err != nil {
				found = append(found, err)
			}
			return nil
		})
	})
	return found
}
