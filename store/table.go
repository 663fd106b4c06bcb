package store

import (
	"fmt"
	"iter"
	"strings"
)

// Table is a named set of records of type T, by key, in key order. The zero
// value of every field must be what an older writer, who did not know the
// field, would have meant. A Table is a plain value and holds no state.
type Table[T any] struct {
	bucket []byte
}

// Row is one record. Revision changes with every write and is never used
// twice in the life of the file. Epoch is the highest given to PutEpoch since
// the row was created.
type Row[T any] struct {
	Key      string
	Value    T
	Revision uint64
	Epoch    uint64
}

// NewTable names a table. Two tables of one name are the same table.
func NewTable[T any](name string) Table[T] {
	return Table[T]{bucket: []byte(tablePrefix + name)}
}

// Get returns a row, or ErrNotFound.
func (t Table[T]) Get(tx *Tx, key string) (Row[T], error) {
	b, err := tx.read(t.bucket)
	if err != nil {
		return Row[T]{}, err
	}
	if b != nil && key != "" {
		if raw := b.Get([]byte(key)); raw != nil {
			return t.row([]byte(key), raw)
		}
	}
	return Row[T]{}, t.missing(key)
}

func (t Table[T]) row(key, raw []byte) (Row[T], error) {
	row := Row[T]{Key: string(key)}
	s, err := decodeRecord(t.bucket, key, raw, &row.Value)
	if err != nil {
		return Row[T]{Key: row.Key}, err
	}
	row.Revision, row.Epoch = s.revision, s.epoch
	return row, nil
}

func (t Table[T]) missing(key string) error {
	return fmt.Errorf("%s has no %q: %w", name(t.bucket), key, ErrNotFound)
}

// Put creates or replaces a row, keeps its epoch, and returns its revision.
func (t Table[T]) Put(tx *Tx, key string, value T) (uint64, error) {
	return tx.put(t.bucket, key, value, func(stamp, bool, *uint64) error { return nil })
}

// PutIf is Put if the row is at this revision, else ErrConflict. Revision 0
// stands for a row that does not exist.
func (t Table[T]) PutIf(tx *Tx, key string, value T, revision uint64) (uint64, error) {
	return tx.put(t.bucket, key, value, func(old stamp, _ bool, _ *uint64) error {
		return expect(old, revision)
	})
}

// PutEpoch is Put under an epoch: ErrStaleEpoch if the row has a higher one,
// else the row takes this one.
func (t Table[T]) PutEpoch(tx *Tx, key string, value T, epoch uint64) (uint64, error) {
	return tx.put(t.bucket, key, value, func(old stamp, _ bool, store *uint64) error {
		if old.epoch > epoch {
			return fmt.Errorf("epoch %d is over, the row is at %d: %w", epoch, old.epoch, ErrStaleEpoch)
		}
		*store = epoch
		return nil
	})
}

// Create is Put of a row that must not exist, else ErrConflict.
func (t Table[T]) Create(tx *Tx, key string, value T) (uint64, error) {
	return tx.put(t.bucket, key, value, func(old stamp, exists bool, _ *uint64) error {
		if exists {
			return fmt.Errorf("it already exists (revision %d): %w", old.revision, ErrConflict)
		}
		return nil
	})
}

// Delete removes a row, or returns ErrNotFound. The row's epoch is forgotten
// with it: where a stale owner must stay fenced, keep the row and mark it.
func (t Table[T]) Delete(tx *Tx, key string) error {
	return t.delete(tx, key, nil)
}

// DeleteIf is Delete if the row is at this revision, else ErrConflict.
func (t Table[T]) DeleteIf(tx *Tx, key string, revision uint64) error {
	return t.delete(tx, key, &revision)
}

func (t Table[T]) delete(tx *Tx, key string, revision *uint64) error {
	b, err := tx.write(t.bucket)
	if err != nil {
		return err
	}
	k := []byte(key)
	var raw []byte
	if key != "" {
		raw = b.Get(k)
	}
	if raw == nil {
		return t.missing(key)
	}
	// Without a condition a damaged row is deleted too: it is the way out.
	if revision != nil {
		old, err := decodeRecord(t.bucket, k, raw, nil)
		if err == nil {
			err = expect(old, *revision)
		}
		if err != nil {
			return fmt.Errorf("delete %s %q: %w", name(t.bucket), key, err)
		}
	}
	return b.Delete(k)
}

// expect compares revisions; a row that does not exist has 0.
func expect(old stamp, revision uint64) error {
	switch {
	case old.revision == revision:
		return nil
	case old.revision == 0:
		return fmt.Errorf("it does not exist, revision %d was expected: %w", revision, ErrConflict)
	case revision == 0:
		return fmt.Errorf("it already exists (revision %d): %w", old.revision, ErrConflict)
	}
	return fmt.Errorf("it is at revision %d, %d was expected: %w", old.revision, revision, ErrConflict)
}

// List returns all rows whose key begins with prefix, in key order. It fails
// on the first damaged row; use Prefix to get past one.
func (t Table[T]) List(tx *Tx, prefix string) ([]Row[T], error) {
	var rows []Row[T]
	for row, err := range t.Prefix(tx, prefix) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Prefix yields the rows whose key begins with prefix. A damaged row comes
// with an error and its key, and the next rows follow.
func (t Table[T]) Prefix(tx *Tx, prefix string) iter.Seq2[Row[T], error] {
	return t.scan(tx, prefix, func(key string) bool { return strings.HasPrefix(key, prefix) })
}

// Range yields the rows with from <= key < to; an empty to is the end of the
// table. Errors are as in Prefix.
func (t Table[T]) Range(tx *Tx, from, to string) iter.Seq2[Row[T], error] {
	return t.scan(tx, from, func(key string) bool { return to == "" || key < to })
}

func (t Table[T]) scan(tx *Tx, from string, within func(string) bool) iter.Seq2[Row[T], error] {
	return func(yield func(Row[T], error) bool) {
		for key, raw := range tx.ascend(t.bucket, []byte(from)) {
			if key == nil {
				yield(Row[T]{}, fmt.Errorf("read %s: transaction %w", name(t.bucket), ErrClosed))
				return
			}
			if !within(string(key)) || !yield(t.row(key, raw)) {
				return
			}
		}
	}
}
