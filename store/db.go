package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// pageSize is fixed, so a file moves between hosts with other page sizes.
	pageSize = 4096
	// mapSize is address space, not memory: up to this size a growing file
	// needs no new mapping, and a writer never waits for readers to end.
	mapSize = 64 << 20
	// growStep is how much (sparse) file a growing DB takes at a time.
	growStep           = 1 << 20
	defaultLockTimeout = 2 * time.Second
)

// Options of Open.
type Options struct {
	// LockTimeout is how long to wait for another process to let go of the
	// file. Zero means 2 s, negative means not to wait.
	LockTimeout time.Duration
	// Schema lists all migrations there ever were, oldest first; its length is
	// the schema version. Append to it, never reorder.
	Schema []Migration
	// Log may be nil.
	Log *slog.Logger
}

// DB is one open file. All methods are safe for concurrent use.
type DB struct {
	path string
	file *os.File
	bolt *bolt.DB
	log  *slog.Logger

	broken  atomic.Pointer[error] // set once: why no more writes are taken
	backups sync.Mutex            // one backup at a time: they clean up after each other
	close   sync.Once
}

// Open opens the file at path, creating it (mode 0600) where there is none;
// its directory must exist. It brings the schema up to date. It fails with
// ErrLocked, ErrSchema, ErrCorrupt or ErrFull.
func Open(path string, o Options) (*DB, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = defaultLockTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return db, nil
}

func open(path string, o Options) (*DB, error) {
	file, err := openLocked(path, o.LockTimeout)
	if err != nil {
		return nil, explainFull(err, path)
	}
	current, err := verifyFile(file)
	if err != nil {
		_ = file.Close()
		return nil, corrupt(path, "%v", err)
	}
	if current.otherDamaged {
		o.Log.Warn("store: one of the two meta pages is damaged, as a power cut during a commit leaves it; going on with the other",
			"path", path, "transaction", current.txid)
	}
	db := &DB{path: path, file: file, log: o.Log}
	if err := db.start(); err != nil {
		_ = release(file)
		return nil, err
	}
	if err := db.upgrade(o.Schema, current); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	db.removeStale(path)
	o.Log.Debug("store: open", "path", path, "schema", len(o.Schema), "transaction", current.txid)
	return db, nil
}

// start hands the locked file to bbolt. bbolt panics on damage it meets, and
// reads past the end of a mapped file are faults: both become ErrCorrupt.
func (db *DB) start() (err error) {
	defer db.recoverDamage(&err, anyPanic)()
	db.bolt, err = bolt.Open(db.path, 0o600, &bolt.Options{
		PageSize:        pageSize,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return db.file, nil },
	})
	if err != nil {
		return corrupt(db.path, "%v", err)
	}
	db.bolt.AllocSize = growStep
	return nil
}

// Path returns the path given to Open.
func (db *DB) Path() string { return db.path }

// Close waits for running transactions and lets go of the file. Closing twice
// is allowed.
func (db *DB) Close() (err error) {
	db.close.Do(func() {
		if why := db.broken.Load(); why != nil && errors.Is(*why, ErrCorrupt) {
			// bbolt may have died holding its locks: take the file from under it.
			err = release(db.file)
			return
		}
		err = db.bolt.Close()
	})
	if err != nil {
		return fmt.Errorf("close store %s: %w", db.path, err)
	}
	return nil
}

// View runs fn in a read-only transaction: one consistent state. Values read
// stay valid after it. It returns the error of fn.
func (db *DB) View(fn func(*Tx) error) (err error) {
	if why := db.broken.Load(); why != nil && errors.Is(*why, ErrCorrupt) {
		return *why
	}
	defer db.recoverDamage(&err, damageOnly)()
	return db.begin(false, func(tx *Tx) error { return fn(tx) })
}

// Update runs fn in a transaction and commits it, durably, when fn returns
// nil. On any error (of fn: returned as it is; of the disk: ErrFull where it
// is full) nothing of it is stored, but for ErrUncertain. Revisions and
// sequences seen in a transaction that failed may be handed out again.
func (db *DB) Update(fn func(*Tx) error) (err error) {
	if why := db.broken.Load(); why != nil {
		return *why
	}
	defer db.recoverDamage(&err, damageOnly)()
	return db.begin(true, func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if err := db.commit(tx.bolt); err != nil {
			return err
		}
		for _, fn := range tx.hooks {
			fn()
		}
		return nil
	})
}

func (db *DB) commit(tx *bolt.Tx) (err error) {
	defer db.recoverDamage(&err, anyPanic)()
	id := tx.ID()
	if err := tx.Commit(); err != nil {
		return db.commitFailed(id, err)
	}
	return nil
}

func (db *DB) begin(write bool, fn func(*Tx) error) error {
	inner, err := db.bolt.Begin(write)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("store %s: %w", db.path, ErrClosed)
	} else if err != nil {
		return fmt.Errorf("store %s: begin a transaction: %w", db.path, err)
	}
	tx := &Tx{bolt: inner}
	defer func() {
		tx.bolt = nil
		db.rollback(inner)
	}()
	return fn(tx)
}

func (db *DB) rollback(tx *bolt.Tx) {
	var damage error // noted in db.broken, for the next to come
	defer db.recoverDamage(&damage, anyPanic)()
	_ = tx.Rollback() // after a commit: reports "closed", which is right
}
