package store

import (
	"bytes"
	"iter"

	bolt "go.etcd.io/bbolt"
)

// ascend yields keys and raw records from a key on. The caller may write to
// the bucket meanwhile. A nil key means that the transaction has ended.
func (tx *Tx) ascend(bucket, from []byte) iter.Seq2[[]byte, []byte] {
	return tx.walk(bucket, func(c *bolt.Cursor) ([]byte, []byte) { return c.Seek(from) }, func(c *bolt.Cursor, last []byte) ([]byte, []byte) {
		k, v := c.Seek(last)
		if bytes.Equal(k, last) {
			return c.Next()
		}
		return k, v
	}, (*bolt.Cursor).Next)
}

// descend yields keys and raw records from the last one down.
func (tx *Tx) descend(bucket []byte) iter.Seq2[[]byte, []byte] {
	return tx.walk(bucket, (*bolt.Cursor).Last, func(c *bolt.Cursor, last []byte) ([]byte, []byte) {
		if k, _ := c.Seek(last); k == nil {
			return c.Last()
		}
		return c.Prev()
	}, (*bolt.Cursor).Prev)
}

// walk moves a cursor. bbolt's cursor does not survive a write to its bucket,
// so in a writable transaction it finds its place again for every step.
func (tx *Tx) walk(bucket []byte, first func(*bolt.Cursor) ([]byte, []byte),
	again func(c *bolt.Cursor, last []byte) ([]byte, []byte), next func(*bolt.Cursor) ([]byte, []byte),
) iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		b, err := tx.read(bucket)
		if err != nil {
			yield(nil, nil)
			return
		}
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := first(c); k != nil; {
			last := bytes.Clone(k)
			if !yield(last, v) {
				return
			}
			switch {
			case tx.bolt == nil:
				yield(nil, nil)
				return
			case tx.bolt.Writable():
				k, v = again(c, last)
			default:
				k, v = next(c)
			}
		}
	}
}
