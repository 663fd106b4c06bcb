package store

import (
	"fmt"
	"strings"
	"testing"
)

func TestLog(t *testing.T) {
	path := t.TempDir() + "/test.db"
	events := NewLog[string]("events")
	seqs := func(db *DB, since uint64, limit int) string {
		var out []string
		view(t, db, func(tx *Tx) error {
			entries, err := events.Since(tx, since, limit)
			for _, e := range entries {
				if want := fmt.Sprint("event ", e.Seq); e.Value != want {
					t.Errorf("entry %d is %q", e.Seq, e.Value)
				}
				out = append(out, fmt.Sprint(e.Seq))
			}
			return err
		})
		return strings.Join(out, " ")
	}
	appendTo := func(db *DB, n int) {
		update(t, db, func(tx *Tx) error {
			for range n {
				next := uint64(1)
				if last, err := lastSeq(tx, events); err == nil {
					next = last + 1
				}
				if seq, err := events.Append(tx, fmt.Sprint("event ", next)); err != nil || seq != next {
					t.Fatalf("sequence %d, want %d (%v)", seq, next, err)
				}
			}
			return nil
		})
	}
	trim := func(db *DB, keep, want int) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			dropped, err := events.Trim(tx, keep)
			if dropped != want {
				t.Errorf("trim to %d dropped %d, want %d", keep, dropped, want)
			}
			return err
		})
	}

	db := openTest(t, path)
	view(t, db, func(tx *Tx) error { _, err := events.Last(tx); wantErr(t, err, ErrNotFound, "log events"); return nil })
	trim(db, 3, 0)
	appendTo(db, 10)
	for _, c := range []struct {
		since uint64
		limit int
		want  string
	}{{0, 0, "1 2 3 4 5 6 7 8 9 10"}, {7, 0, "8 9 10"}, {3, 2, "4 5"}, {10, 0, ""}, {1<<64 - 1, 5, ""}} {
		if got := seqs(db, c.since, c.limit); got != c.want {
			t.Errorf("since %d, at most %d: %s, want %s", c.since, c.limit, got, c.want)
		}
	}
	trim(db, 20, 0)
	trim(db, 4, 6)
	if got := seqs(db, 0, 0); got != "7 8 9 10" {
		t.Errorf("after the trim: %s", got)
	}
	var back []string
	view(t, db, func(tx *Tx) error {
		for e, err := range events.Backward(tx) {
			if err != nil {
				return err
			}
			back = append(back, fmt.Sprint(e.Seq))
		}
		return nil
	})
	if got := strings.Join(back, " "); got != "10 9 8 7" {
		t.Errorf("backward: %s", got)
	}
	trim(db, -1, 4)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	// Numbers go on over an empty log and a restart.
	db = openTest(t, path)
	update(t, db, func(tx *Tx) error {
		if seq, err := events.Append(tx, "event 11"); err != nil || seq != 11 {
			t.Errorf("sequence %d, want 11 (%v)", seq, err)
		}
		return nil
	})
}

func lastSeq(tx *Tx, l Log[string]) (uint64, error) {
	e, err := l.Last(tx)
	return e.Seq, err
}

func TestBackwardWhileTrimming(t *testing.T) {
	db := newTest(t)
	l := NewLog[int]("l")
	seen := 0
	update(t, db, func(tx *Tx) error {
		for i := range 300 {
			if _, err := l.Append(tx, i); err != nil {
				return err
			}
		}
		for e, err := range l.Backward(tx) {
			if err != nil || e.Value != 299-seen {
				t.Fatalf("entry %+v (%v) after %d", e, err, seen)
			}
			if seen++; seen%10 == 0 {
				if _, err := l.Trim(tx, 290-seen/10); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if seen < 150 || seen > 290 {
		t.Errorf("saw %d entries", seen)
	}
}
