package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
)

// Log is a named append-only sequence of records of type T, numbered from 1.
// Numbers go on after a Trim and are never used twice. A Log is a plain value
// and holds no state.
type Log[T any] struct {
	bucket []byte
}

// Entry is one record of a log.
type Entry[T any] struct {
	Seq   uint64
	Value T
}

// NewLog names a log. Two logs of one name are the same log.
func NewLog[T any](name string) Log[T] {
	return Log[T]{bucket: []byte(logPrefix + name)}
}

// Append adds a record and returns its number.
func (l Log[T]) Append(tx *Tx, value T) (uint64, error) {
	b, err := tx.write(l.bucket)
	if err != nil {
		return 0, err
	}
	seq, err := b.NextSequence()
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", name(l.bucket), err)
	}
	key := seqKey(seq)
	record, err := encodeRecord(l.bucket, key, stamp{revision: seq}, value)
	if err != nil {
		return 0, err
	}
	if err := b.Put(key, record); err != nil {
		return 0, fmt.Errorf("append to %s: %w", name(l.bucket), err)
	}
	return seq, nil
}

// Since returns the entries after number seq, oldest first, at most limit of
// them (all if limit <= 0). A first entry beyond seq+1 tells that those
// between were trimmed.
func (l Log[T]) Since(tx *Tx, seq uint64, limit int) ([]Entry[T], error) {
	var entries []Entry[T]
	if seq+1 == 0 {
		return nil, nil
	}
	for key, raw := range tx.ascend(l.bucket, seqKey(seq+1)) {
		e, err := l.entry(key, raw)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
		if len(entries) == limit {
			break
		}
	}
	return entries, nil
}

// Last returns the newest entry, or ErrNotFound when there is none.
func (l Log[T]) Last(tx *Tx) (Entry[T], error) {
	for e, err := range l.Backward(tx) {
		return e, err
	}
	return Entry[T]{}, fmt.Errorf("%s is empty: %w", name(l.bucket), ErrNotFound)
}

// Backward yields the entries newest first, to look for the start of a time
// range. A damaged entry comes with an error and its number.
func (l Log[T]) Backward(tx *Tx) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		for key, raw := range tx.descend(l.bucket) {
			if !yield(l.entry(key, raw)) {
				return
			}
		}
	}
}

// Trim removes the oldest entries until keep are left and returns how many it
// removed.
func (l Log[T]) Trim(tx *Tx, keep int) (int, error) {
	b, err := tx.write(l.bucket)
	if err != nil {
		return 0, err
	}
	// Numbers have no gaps but for what was trimmed, so the last one and keep
	// say where to stop.
	var old [][]byte
	last, _ := b.Cursor().Last()
	stop := seqKey(seqOf(last) - min(seqOf(last), uint64(max(keep, 0))))
	for key := range tx.ascend(l.bucket, nil) {
		if bytes.Compare(key, stop) > 0 {
			break
		}
		old = append(old, key)
	}
	for _, key := range old {
		if err := b.Delete(key); err != nil {
			return 0, fmt.Errorf("trim %s: %w", name(l.bucket), err)
		}
	}
	return len(old), nil
}

func (l Log[T]) entry(key, raw []byte) (Entry[T], error) {
	if key == nil {
		return Entry[T]{}, fmt.Errorf("read %s: transaction %w", name(l.bucket), ErrClosed)
	}
	if len(key) != 8 {
		return Entry[T]{}, fmt.Errorf("%w: %s has a key of %d bytes", ErrCorrupt, name(l.bucket), len(key))
	}
	e := Entry[T]{Seq: seqOf(key)}
	if _, err := decodeRecord(l.bucket, key, raw, &e.Value); err != nil {
		return Entry[T]{Seq: e.Seq}, err
	}
	return e, nil
}

// seqOf is the number in a key of the log, 0 for none.
func seqOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
