package store

import (
	"fmt"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// commitFailed says what a failed commit of transaction id means. bbolt writes
// and syncs all pages first and the meta page last. If the meta page is not the
// new one, nothing happened. If it is, only the last sync failed: the new state
// is visible, and not known to be on the disk. Going on from there would reuse
// pages that the state on the disk still needs, so the DB stops writing.
func (db *DB) commitFailed(id int, cause error) error {
	visible := -1
	err := db.bolt.View(func(tx *bolt.Tx) error {
		visible = tx.ID()
		return nil
	})
	if err == nil && visible < id {
		return fmt.Errorf("commit to store: %w", explainFull(cause, db.path))
	}
	return db.markBroken(fmt.Errorf("%w: the last write to %s failed (%w), check the disk, then restart this vmctl process",
		ErrUncertain, db.path, cause))
}

// markBroken makes every later Update return err (the first one, if there was
// one before) and logs it.
func (db *DB) markBroken(err error) error {
	if !db.broken.CompareAndSwap(nil, &err) {
		return *db.broken.Load()
	}
	db.log.Error("store: no more writes are taken", "path", db.path, "reason", err)
	return err
}

// recoverDamage returns the function to defer around everything that lets bbolt
// read the mapped file. Panics that take says are of its making become
// ErrCorrupt in *err, other panics go on.
func (db *DB) recoverDamage(err *error, take func(any) bool) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			if !take(p) {
				panic(p)
			}
			*err = db.markBroken(corrupt(db.path, "%v", p))
		}
	}
}

// anyPanic is for code that is all bbolt's.
func anyPanic(any) bool { return true }

// damageOnly is for code that is partly the caller's: it takes memory faults
// (an unreadable sector, a file cut short) and bbolt's own words.
func damageOnly(p any) bool {
	switch p := p.(type) {
	case interface{ Addr() uintptr }:
		return true
	case string:
		for _, sign := range []string{"assertion failed: ", "invalid freelist page", " already freed", "bolt.DB.meta()"} {
			if strings.Contains(p, sign) {
				return true
			}
		}
	}
	return false
}
