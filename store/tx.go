package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Tx is a running transaction. It is only valid inside the function given to
// View or Update, and only on its goroutine.
type Tx struct {
	bolt  *bolt.Tx
	hooks []func()
}

// Writable reports whether this is an Update.
func (tx *Tx) Writable() bool { return tx.bolt != nil && tx.bolt.Writable() }

// OnCommit has fn called after the transaction is durable, before Update
// returns, on the same goroutine. It is not called if the transaction fails
// or is a View.
func (tx *Tx) OnCommit(fn func()) {
	if tx.Writable() {
		tx.hooks = append(tx.hooks, fn)
	}
}

// read returns a bucket, nil where nothing was ever written to it.
func (tx *Tx) read(bucket []byte) (*bolt.Bucket, error) {
	if tx.bolt == nil {
		return nil, fmt.Errorf("read %s: transaction %w", name(bucket), ErrClosed)
	}
	return tx.bolt.Bucket(bucket), nil
}

// write returns a bucket to write to.
func (tx *Tx) write(bucket []byte) (*bolt.Bucket, error) {
	if tx.bolt == nil {
		return nil, fmt.Errorf("write %s: transaction %w", name(bucket), ErrClosed)
	}
	if !tx.bolt.Writable() {
		return nil, fmt.Errorf("write %s: %w", name(bucket), ErrReadOnly)
	}
	b, err := tx.bolt.CreateBucketIfNotExists(bucket)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name(bucket), err)
	}
	return b, nil
}

// nextRevision takes a number off the counter of the whole file.
func (tx *Tx) nextRevision() (uint64, error) {
	b := tx.bolt.Bucket(systemBucket)
	if b == nil {
		return 0, errors.New("the store has lost its counter")
	}
	return b.NextSequence()
}

// put stores value under key when check agrees with what is there. check may
// change the epoch to store; it starts as the stored one.
func (tx *Tx) put(bucket []byte, key string, value any, check func(old stamp, exists bool, epoch *uint64) error) (uint64, error) {
	b, err := tx.write(bucket)
	if err != nil {
		return 0, err
	}
	k := []byte(key)
	var old stamp
	raw := b.Get(k)
	if raw != nil {
		if old, err = decodeRecord(bucket, k, raw, nil); err != nil {
			return 0, err
		}
	}
	epoch := old.epoch
	if err := check(old, raw != nil, &epoch); err != nil {
		return 0, fmt.Errorf("write %s %q: %w", name(bucket), key, err)
	}
	revision, err := tx.nextRevision()
	if err != nil {
		return 0, err
	}
	record, err := encodeRecord(bucket, k, stamp{revision, epoch}, value)
	if err != nil {
		return 0, err
	}
	if err := b.Put(k, record); err != nil {
		return 0, fmt.Errorf("write %s %q: %w", name(bucket), key, explainKey(err))
	}
	return revision, nil
}

func explainKey(err error) error {
	switch {
	case errors.Is(err, berrors.ErrKeyRequired):
		return errors.New("the key is empty")
	case errors.Is(err, berrors.ErrKeyTooLarge):
		return fmt.Errorf("the key is longer than %d bytes", bolt.MaxKeySize)
	}
	return err
}
