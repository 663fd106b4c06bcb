package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const sector = 512 // what a disk writes as a whole or not at all

// event is a call on the file in the order issued, or the return of an Update.
type event struct {
	call
	ack  bool
	lost bool // its sync failed: the kernel calls it clean and never writes it again
}

// recording is a run of a store: what the disk was asked, and all states.
type recording struct {
	base   image               // the file before, all of it on the disk
	states []map[string]string // contents after each transaction

	mu     sync.Mutex
	events []event
	kill   bool // the next sync after a meta page does not happen
}

// image is a file: data, and nothing but zeros from there to size.
type image struct {
	data []byte
	size int64
}

func (m image) clone() image { return image{bytes.Clone(m.data), m.size} }

// TestPowerCut records the real sequence of calls of two sessions, cuts the
// power at every one of them, and opens what the disk may then hold: all that
// was synced, and of the rest every prefix torn at each sector, and random
// subsets of sectors, since a disk may reorder between two syncs.
//
// The first session ends with a failed sync of its last meta page, so the
// second one begins on a state that is only in the page cache. The race detector
// sees one in seven of the images; make sim opens all.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	r := record(t)
	random := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(memoryDir(t), "cut.db")
	durable, synced, acked, images := r.base.clone(), 0, 0, 0
	check := func(m image, format string, args ...any) {
		if images++; !underRace || images%7 == 0 {
			r.check(t, path, m, acked, fmt.Sprintf(format, args...))
		}
	}
	for i, e := range r.events {
		pending := r.events[synced : i+1]
		for torn := range sectors(e) + 1 {
			image := durable.clone()
			for j, p := range pending {
				if p.lost {
					continue
				}
				if j == len(pending)-1 {
					image = apply(image, p, func(s int) bool { return s < torn })
				} else {
					image = apply(image, p, nil)
				}
			}
			check(image, "cut in call %d after %d sectors", i, torn)
		}
		for n := range 3 {
			image := durable.clone()
			for _, p := range pending {
				whole := random.IntN(3)
				image = apply(image, p, func(int) bool { return whole == 0 || whole == 1 && random.IntN(2) == 0 })
			}
			check(image, "cut in call %d, random subset %d", i, n)
		}
		if e.ack {
			acked++
		} else if e.sync() {
			for _, p := range pending {
				if !p.lost {
					durable = apply(durable, p, nil)
				}
			}
			synced = i + 1
		}
	}
	t.Logf("%d calls, %d transactions, %d images", len(r.events), acked, images)
	if acked < 20 || images < 1000 {
		t.Error("too few to show anything")
	}
}

func sectors(e event) int { return len(e.data) / sector }

// apply does a call on an image: the sectors that keep says, all if it is nil.
func apply(m image, e event, keep func(s int) bool) image {
	if e.nr == unix.SYS_FTRUNCATE && (keep == nil || keep(0)) {
		m.size = max(m.size, e.offset)
	}
	for s := range sectors(e) {
		if keep == nil || keep(s) {
			at := e.offset + int64(s*sector)
			if missing := at + sector - int64(len(m.data)); missing > 0 {
				m.data = append(m.data, make([]byte, missing)...)
			}
			copy(m.data[at:], e.data[s*sector:(s+1)*sector])
		}
	}
	m.size = max(m.size, int64(len(m.data)))
	return m
}

// check opens an image: it must hold one of the states from the last
// acknowledged one on, be consistent, and take writes.
func (r *recording) check(t *testing.T, path string, m image, acked int, what string) {
	t.Helper()
	if err := os.WriteFile(path, m.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, m.size); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	now := contents(t, db)
	found := false
	for _, state := range r.states[acked:] {
		found = found || maps.Equal(now, state)
	}
	if !found {
		t.Fatalf("%s: the state is none of those from transaction %d on", what, acked)
	}
	if err := db.Check(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	put(t, db, "after", guest{Name: what})
	if err := db.Check(); err != nil {
		t.Fatalf("%s, and one more write: %v", what, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// record runs the two sessions.
func record(t *testing.T) *recording {
	path := filepath.Join(memoryDir(t), "recorded.db")
	db := openTest(t, path)
	put(t, db, "seed", guest{})
	r := &recording{states: []map[string]string{contents(t, db)}}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r.base = image{data, int64(len(data))}
	interpose(t, r.decide, func() {
		r.session(t, path, 0, 14)
		// It has no acknowledgement of its own: the next one speaks for both.
		db := openTest(t, path)
		r.setKill(true)
		wantErr(t, db.Update(func(tx *Tx) error { return work(tx, 14) }), ErrUncertain)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		r.setKill(false)
		r.session(t, path, 15, 24)
	})
	return r
}

func (r *recording) decide(c call) syscall.Errno {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.events); r.kill && n > 0 && c.sync() {
		if last := &r.events[n-1]; len(last.data) == pageSize && last.offset < 2*pageSize {
			last.lost = true
			return syscall.EIO
		}
	}
	r.events = append(r.events, event{call: c})
	return 0
}

func (r *recording) setKill(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kill = on
}

// acknowledge notes that the caller of Update now relies on this state.
func (r *recording) acknowledge(state map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, state)
	r.events = append(r.events, event{ack: true})
}

func (r *recording) session(t *testing.T, path string, from, to int) {
	db := openTest(t, path)
	if now := contents(t, db); !maps.Equal(now, r.states[len(r.states)-1]) {
		r.acknowledge(now) // what the session that was killed left
	}
	for i := from; i < to; i++ {
		update(t, db, func(tx *Tx) error { return work(tx, i) })
		r.acknowledge(contents(t, db))
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// work is the i-th transaction: small ones, ones of several pages, deletes.
func work(tx *Tx, i int) error {
	for j := range i%4 + 1 {
		g := guest{Name: fmt.Sprint(i), Blob: bytes.Repeat([]byte{byte(i)}, (i*977+j*313)%6000)}
		if _, err := guests.Put(tx, fmt.Sprint((i*7+j)%11), g); err != nil {
			return err
		}
	}
	if i%3 == 2 {
		rows, err := guests.List(tx, "")
		if err != nil {
			return err
		}
		if err := guests.Delete(tx, rows[i%len(rows)].Key); err != nil {
			return err
		}
	}
	events := NewLog[string]("events")
	if _, err := events.Append(tx, strings.Repeat(fmt.Sprint(i), 50)); err != nil {
		return err
	}
	_, err := events.Trim(tx, 8)
	return err
}
