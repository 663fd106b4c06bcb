package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// contents is everything a test put into a store.
func contents(t *testing.T, db *DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	view(t, db, func(tx *Tx) error {
		for row, err := range guests.Prefix(tx, "") {
			if err != nil {
				return err
			}
			all[row.Key] = fmt.Sprint(row.Revision, row.Epoch, row.Value.Name) + string(row.Value.Blob)
		}
		entries, err := NewLog[string]("events").Since(tx, 0, 0)
		for _, e := range entries {
			all[fmt.Sprint("event ", e.Seq)] = e.Value
		}
		return err
	})
	return all
}

// change is a transaction that touches many pages and grows the file.
func change(tx *Tx) error {
	for i := range 40 {
		if _, err := guests.Put(tx, fmt.Sprint(i), guest{Name: "new", Blob: make([]byte, 300*i)}); err != nil {
			return err
		}
	}
	_, err := NewLog[string]("events").Append(tx, strings.Repeat("x", 20000))
	return err
}

// Every system call of a commit fails in turn, for three reasons. Only a
// failure of the very last sync leaves the outcome open, and is called so.
func TestEveryCallOfACommitFails(t *testing.T) {
	t.Parallel()
	for _, reason := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		t.Run(reason.Error(), func(t *testing.T) {
			calls := 1
			for fail := 0; fail < calls; fail++ {
				calls = failCall(t, reason, fail)
			}
			if calls < 8 {
				t.Errorf("a commit of %d calls is too small to show anything", calls)
			}
		})
	}
}

// failCall fails one call of a commit and returns how many there are.
func failCall(t *testing.T, reason syscall.Errno, fail int) int {
	dir := memoryDir(t)
	path := filepath.Join(dir, "test.db")
	db := openTest(t, path)
	put(t, db, "1", guest{Name: "old"})
	before := contents(t, db)
	total, seen := countCalls(t), 0
	var err error
	interpose(t, func(c call) syscall.Errno {
		seen++
		if seen == fail+1 {
			return reason
		}
		return 0
	}, func() { err = db.Update(change) })
	if fail == total-1 {
		wantErr(t, err, ErrUncertain, path, "restart")
		if errors.Is(err, ErrFull) {
			t.Error("ErrFull promises that nothing was stored")
		}
		wantErr(t, db.Update(change), ErrUncertain)
		contents(t, db) // still readable
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = openTest(t, path)
	} else {
		if err == nil || errors.Is(err, ErrUncertain) || errors.Is(err, ErrFull) != (reason != syscall.EIO) {
			t.Fatalf("call %d of %d fails: %v", fail, total, err)
		}
		if now := contents(t, db); !reflect.DeepEqual(now, before) {
			t.Fatalf("call %d of %d fails, something was stored", fail, total)
		}
	}
	if err := db.Check(); err != nil {
		t.Fatalf("call %d of %d fails: %v", fail, total, err)
	}
	update(t, db, change)
	if after := contents(t, db); len(after) < 41 {
		t.Errorf("call %d of %d fails, and then %d records", fail, total, len(after))
	}
	return total
}

// countCalls counts the calls of the same commit when it succeeds.
func countCalls(t *testing.T) (calls int) {
	db := openTest(t, filepath.Join(memoryDir(t), "count.db"))
	put(t, db, "1", guest{Name: "old"})
	interpose(t, func(call) syscall.Errno { calls++; return 0 }, func() {
		if err := db.Update(change); err != nil {
			t.Error(err)
		}
	})
	return calls
}

// From one call of Open on, nothing works any more: what is left behind must
// open the next time, with nothing lost.
func TestOpenFailsAtEveryCall(t *testing.T) {
	t.Parallel()
	schema := []Migration{{"one", change}, {"two", change}}
	for name, prepare := range map[string]func(*testing.T, string){
		"new file": func(*testing.T, string) {},
		"old file": func(t *testing.T, path string) {
			db := openTest(t, path, schema[:1]...)
			put(t, db, "kept", guest{Name: "kept"})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			failed := true
			rounds := 0
			for ; failed; rounds++ {
				path := filepath.Join(memoryDir(t), "test.db")
				prepare(t, path)
				seen := 0
				interpose(t, func(call) syscall.Errno {
					if seen++; seen > rounds {
						return syscall.EIO
					}
					return 0
				}, func() {
					db, err := Open(path, Options{Schema: schema})
					if failed = err != nil; !failed {
						err = db.Close()
					}
					if failed && !errors.Is(err, syscall.EIO) && !strings.Contains(err.Error(), syscall.EIO.Error()) {
						t.Errorf("round %d: %v", rounds, err)
					}
				})
				db := openTest(t, path, schema...)
				if name == "old file" && get(t, db, "kept").Value.Name != "kept" {
					t.Error("a row was lost")
				}
			}
			if rounds < 10 {
				t.Errorf("only %d rounds", rounds)
			}
		})
	}
}
