package store

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func TestRowsKeepAllTheirFields(t *testing.T) {
	db := newTest(t)
	want := guest{Name: "web", CPUs: 4, Disks: []string{"a", "b"}, Notes: map[string]string{"k": "v"}, Blob: []byte{0, 255}}
	revision := put(t, db, "web", want)
	row := get(t, db, "web")
	// After the transaction: nothing may point into the mapped file.
	if row.Key != "web" || !reflect.DeepEqual(row.Value, want) || row.Revision != revision || row.Epoch != 0 {
		t.Errorf("got %+v", row)
	}
}

func TestWrites(t *testing.T) {
	table := NewTable[int]("numbers")
	// Each case starts with row "x" = 1 at the given revision, epoch 5.
	cases := []struct {
		name  string
		write func(tx *Tx, revision uint64) error
		want  error
		value int // of x afterwards, 0 if gone
		epoch uint64
	}{
		{"put replaces and keeps the epoch", func(tx *Tx, r uint64) error { _, err := table.Put(tx, "x", 2); return err }, nil, 2, 5},
		{"put-if at the revision", func(tx *Tx, r uint64) error { _, err := table.PutIf(tx, "x", 2, r); return err }, nil, 2, 5},
		{"put-if at another revision", func(tx *Tx, r uint64) error { _, err := table.PutIf(tx, "x", 2, r-1); return err }, ErrConflict, 1, 5},
		{"put-if must not exist but does", func(tx *Tx, r uint64) error { _, err := table.PutIf(tx, "x", 2, 0); return err }, ErrConflict, 1, 5},
		{"put-if of a missing row", func(tx *Tx, r uint64) error { _, err := table.PutIf(tx, "y", 2, 1); return err }, ErrConflict, 1, 5},
		{"put-if creates", func(tx *Tx, r uint64) error { _, err := table.PutIf(tx, "y", 2, 0); return err }, nil, 1, 5},
		{"lower epoch", func(tx *Tx, r uint64) error { _, err := table.PutEpoch(tx, "x", 2, 4); return err }, ErrStaleEpoch, 1, 5},
		{"equal epoch", func(tx *Tx, r uint64) error { _, err := table.PutEpoch(tx, "x", 2, 5); return err }, nil, 2, 5},
		{"higher epoch", func(tx *Tx, r uint64) error { _, err := table.PutEpoch(tx, "x", 2, math.MaxUint64); return err }, nil, 2, math.MaxUint64},
		{"create of an existing row", func(tx *Tx, r uint64) error { _, err := table.Create(tx, "x", 2); return err }, ErrConflict, 1, 5},
		{"delete", func(tx *Tx, r uint64) error { return table.Delete(tx, "x") }, nil, 0, 0},
		{"delete of a missing row", func(tx *Tx, r uint64) error { return table.Delete(tx, "y") }, ErrNotFound, 1, 5},
		{"delete-if at the revision", func(tx *Tx, r uint64) error { return table.DeleteIf(tx, "x", r) }, nil, 0, 0},
		{"delete-if at another revision", func(tx *Tx, r uint64) error { return table.DeleteIf(tx, "x", r+1) }, ErrConflict, 1, 5},
		{"delete then create", func(tx *Tx, r uint64) error {
			now, err := table.Create(tx, "z", 1)
			err = errors.Join(err, table.Delete(tx, "z"))
			again, err2 := table.Create(tx, "z", 1)
			if again <= now || now <= r {
				t.Errorf("revisions %d, %d, %d do not rise", r, now, again)
			}
			return errors.Join(err, err2)
		}, nil, 1, 5},
	}
	db := newTest(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var revision uint64
			update(t, db, func(tx *Tx) (err error) {
				for _, key := range []string{"x", "y", "z"} {
					_ = table.Delete(tx, key)
				}
				revision, err = table.PutEpoch(tx, "x", 1, 5)
				return err
			})
			if err := db.Update(func(tx *Tx) error { return c.write(tx, revision) }); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			view(t, db, func(tx *Tx) error {
				row, err := table.Get(tx, "x")
				if c.value == 0 {
					wantErr(t, err, ErrNotFound, "numbers", `"x"`)
				} else if err != nil || row.Value != c.value || row.Epoch != c.epoch {
					t.Errorf("row %+v, %v", row, err)
				}
				return nil
			})
		})
	}
}

func TestRevisionsNeverRepeat(t *testing.T) {
	path := t.TempDir() + "/test.db"
	other := NewTable[string]("other")
	last := uint64(0)
	for range 3 {
		db := openTest(t, path)
		update(t, db, func(tx *Tx) error {
			for i := range 5 {
				a, err1 := guests.Put(tx, fmt.Sprint(i), guest{})
				b, err2 := other.Put(tx, "same", "x")
				err3 := other.Delete(tx, "same")
				if a <= last || b <= a {
					t.Errorf("revisions %d, %d after %d", a, b, last)
				}
				last = b
				if err := errors.Join(err1, err2, err3); err != nil {
					return err
				}
			}
			return nil
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailedUpdateLeavesNothing(t *testing.T) {
	db := newTest(t)
	put(t, db, "a", guest{CPUs: 1})
	stop := errors.New("stop")
	called := false
	err := db.Update(func(tx *Tx) error {
		tx.OnCommit(func() { called = true })
		_, err := guests.Put(tx, "a", guest{CPUs: 2})
		return errors.Join(err, stop)
	})
	wantErr(t, err, stop)
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v, the caller's own panic must pass", p)
			}
		}()
		_ = db.Update(func(tx *Tx) error {
			_, _ = guests.Put(tx, "a", guest{CPUs: 3})
			panic("mine")
		})
	}()
	if got := get(t, db, "a").Value.CPUs; got != 1 || called {
		t.Errorf("value %d, commit hook called: %v", got, called)
	}
	update(t, db, func(tx *Tx) error { tx.OnCommit(func() { called = true }); return nil })
	if !called {
		t.Error("commit hook was not called")
	}
}

func TestListAndRange(t *testing.T) {
	db := newTest(t)
	table := NewTable[int]("t")
	view(t, db, func(tx *Tx) error {
		if rows, err := table.List(tx, ""); err != nil || len(rows) != 0 {
			t.Errorf("a table never written: %v, %v", rows, err)
		}
		return nil
	})
	update(t, db, func(tx *Tx) error {
		for i, key := range []string{"b/2", "a/1", "b/1", "b/10", "c", "b"} {
			if _, err := table.Put(tx, key, i); err != nil {
				return err
			}
		}
		return nil
	})
	for _, run := range []func(func(*Tx) error) error{db.View, db.Update} {
		_ = run(func(tx *Tx) error {
			for _, c := range []struct{ prefix, from, to, want string }{
				{prefix: "", to: "", want: "a/1 b b/1 b/10 b/2 c"},
				{prefix: "b/", from: "b/", to: "b0", want: "b/1 b/10 b/2"},
				{prefix: "c", from: "c", want: "c"},
				{prefix: "x", from: "x", want: ""},
			} {
				rows, err := table.List(tx, c.prefix)
				var listed, ranged []string
				for _, r := range rows {
					listed = append(listed, r.Key)
				}
				for r, err := range table.Range(tx, c.from, c.to) {
					if err != nil {
						t.Error(err)
					}
					ranged = append(ranged, r.Key)
				}
				if err != nil || strings.Join(listed, " ") != c.want || strings.Join(ranged, " ") != c.want {
					t.Errorf("prefix %q: %v, range %q to %q: %v, want %s (%v)", c.prefix, listed, c.from, c.to, ranged, c.want, err)
				}
			}
			return nil
		})
	}
}

// Rows may be deleted and written while they are walked over.
func TestWritesInsideARange(t *testing.T) {
	db := newTest(t)
	table := NewTable[string]("t")
	update(t, db, func(tx *Tx) error {
		for i := range 500 {
			if _, err := table.Put(tx, fmt.Sprintf("%04d", i), strings.Repeat("x", i)); err != nil {
				return err
			}
		}
		return nil
	})
	var seen []string
	update(t, db, func(tx *Tx) error {
		for row, err := range table.Prefix(tx, "") {
			if err != nil {
				return err
			}
			seen = append(seen, row.Key)
			if len(seen)%2 == 0 {
				err = table.Delete(tx, row.Key)
			} else {
				_, err = table.Put(tx, row.Key, strings.Repeat("y", 1000))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if len(seen) != 500 || !slices.IsSorted(seen) {
		t.Errorf("saw %d rows", len(seen))
	}
}

func TestADamagedRowHidesNoOther(t *testing.T) {
	db := newTest(t)
	for _, key := range []string{"a", "b", "c"} {
		put(t, db, key, guest{Name: key})
	}
	// Swap two valid records: each has a good checksum, for another key.
	update(t, db, func(tx *Tx) error {
		b := tx.bolt.Bucket(guests.bucket)
		return b.Put([]byte("b"), slices.Clone(b.Get([]byte("a"))))
	})
	view(t, db, func(tx *Tx) error {
		_, err := guests.Get(tx, "b")
		wantErr(t, err, ErrCorrupt, "table guests", `"b"`)
		_, err = guests.List(tx, "")
		wantErr(t, err, ErrCorrupt)
		var seen []string
		for row, err := range guests.Prefix(tx, "") {
			seen = append(seen, fmt.Sprint(row.Key, row.Value.Name, err != nil))
		}
		if got := strings.Join(seen, " "); got != "aafalse btrue ccfalse" {
			t.Errorf("saw %s", got)
		}
		return nil
	})
	wantErr(t, db.Check(), ErrCorrupt, `"b"`)
	update(t, db, func(tx *Tx) error { return guests.Delete(tx, "b") })
}

func TestMisuse(t *testing.T) {
	db := newTest(t)
	var kept *Tx
	err := db.View(func(tx *Tx) error { kept = tx; _, err := guests.Put(tx, "a", guest{}); return err })
	wantErr(t, err, ErrReadOnly, "guests")
	_, err = guests.Get(kept, "a")
	wantErr(t, err, ErrClosed)
	_, err = guests.List(kept, "")
	wantErr(t, err, ErrClosed)
	_, err = NewLog[int]("l").Append(kept, 1)
	wantErr(t, err, ErrClosed)
	for _, key := range []string{"", strings.Repeat("k", bolt.MaxKeySize+1)} {
		if err := db.Update(func(tx *Tx) error { _, err := guests.Put(tx, key, guest{}); return err }); err == nil || !strings.Contains(err.Error(), "key") {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
		view(t, db, func(tx *Tx) error { _, err := guests.Get(tx, key); wantErr(t, err, ErrNotFound); return nil })
	}
	bad := NewTable[chan int]("bad")
	if err := db.Update(func(tx *Tx) error { _, err := bad.Put(tx, "x", make(chan int)); return err }); err == nil {
		t.Error("a value that cannot be encoded was stored")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, db.Update(func(*Tx) error { return nil }), ErrClosed, db.Path())
	wantErr(t, db.View(func(*Tx) error { return nil }), ErrClosed)
	if err := db.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
