package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/node/api"
	"vmctl/node/notify"
	"vmctl/store"
)

// TestNotificationsOutliveTheAgent: what a webhook had not got when the agent
// was killed it gets from the next one, in order and under the same ids, also
// the end of an alarm that nobody saw.
func TestNotificationsOutliveTheAgent(t *testing.T) {
	var mu sync.Mutex
	var got []notify.Delivery
	seen, again := map[string]bool{}, []string{} // kinds of those that came twice
	away, came := true, make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var d notify.Delivery
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil || away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if seen[d.ID] {
			again = append(again, d.Kind)
			return
		}
		seen[d.ID], got = true, append(got, d)
		came <- struct{}{}
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "db")
	log := slog.New(slog.DiscardHandler)
	begin := func() (n *Node, kill func()) {
		n = &Node{log: log, db: openDB(t, path)}
		var err error
		if n.notifier, err = notify.New(notify.Config{{Webhook: server.URL}}, log); err != nil {
			t.Fatal(err)
		}
		n.journal = newJournal(n.db, "a", log, n.notifier.Notify)
		n.alarms = newAlarms(n.journal)
		if err := errors.Join(n.alarms.load(n.db), n.resumeNotifications()); err != nil {
			t.Fatal(err)
		}
		end := start(t.Context(), n.notifier.Run)
		return n, func() { // nothing is stored on the way
			end()
			if err := n.db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, kill := begin()
	if err := n.db.Update(func(tx *store.Tx) error { // by an agent of the version before
		_, err := eventLog.Append(tx, eventRecord{Kind: "old", Severity: info})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n.journal.record(info, "started", "", "x")
	n.alarms.set("late", "web", true, "no checkpoint")
	n.alarms.set("late", "web", false, "")
	n.alarms.set("clock", "", true, "went back")
	n.journal.flush()
	kill()
	n, kill = begin()
	n.journal.record(info, "again", "", "x")
	n.journal.flush()
	kill()
	mu.Lock()
	away = false
	mu.Unlock()
	n, kill = begin()
	n.alarms.set("clock", "", true, "still")
	n.alarms.set("clock", "", false, "")
	n.journal.record(info, "new", "", "x")
	var kinds []string
	for range 7 {
		select {
		case <-came:
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing comes after %v", kinds)
		}
		mu.Lock()
		d := got[len(kinds)]
		mu.Unlock()
		kinds = append(kinds, d.VM+d.Kind+string(d.State))
	}
	n.journal.flush()
	if want := "[started weblateon weblateoff clockon again clockoff new]"; fmt.Sprint(kinds) != want {
		t.Errorf("told %v, want %s", kinds, want)
	}
	mu.Lock()
	heard := slices.Clone(got)
	mu.Unlock()
	position := 0
	err := n.db.View(func(tx *store.Tx) error {
		entries, err := eventLog.Since(tx, 1, 0)
		for _, e := range entries {
			if d := heard[position]; d.ID != e.Value.ID || d.Message != e.Value.Message || e.Value.Position != uint64(position+1) {
				t.Errorf("told %+v of %+v", d, e.Value)
			}
			position++
		}
		return err
	})
	if err != nil || position != len(kinds) {
		t.Errorf("%d events, %v", position, err)
	}
	n.journal.flushHeard()
	kill()
	_, kill = begin() // to which nothing is left
	kill()
	mu.Lock()
	defer mu.Unlock()
	if len(came) != 0 {
		t.Errorf("told more: %+v", got[7:])
	}
	// What was on its way when a run was killed may have arrived.
	for _, kind := range again {
		if kind != "started" {
			t.Errorf("told again: %q", again)
		}
	}
}

// TestGoneTargetIsTold: what a target had not got that is not configured any
// more is an event.
func TestGoneTargetIsTold(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	d := newDesk(t, db)
	d.journal.heard = func() []notify.Heard { return []notify.Heard{{Key: "webhook-1", Kind: "webhook", Name: "webhook x"}} }
	d.journal.record(info, "one", "", "x")
	d.journal.record(info, "two", "", "x")
	d.journal.flush()
	for _, want := range []string{"", "notifications-dropped", "notifications-dropped"} {
		newest := ""
		if err := db.View(func(tx *store.Tx) error {
			e, err := eventLog.Last(tx)
			newest = e.Value.Kind
			return err
		}); err != nil || want != "" && newest != want {
			t.Fatalf("the newest event is %q, want %q: %v", newest, want, err)
		}
		n := &Node{log: d.journal.log, db: db, journal: newDesk(t, db).journal, alarms: d.alarms}
		var err error
		if n.notifier, err = notify.New(nil, n.log); err != nil {
			t.Fatal(err)
		}
		if err := n.resumeNotifications(); err != nil {
			t.Fatal(err)
		}
		n.journal.flush()
	}
	count := 0
	for e, err := range d.journal.events(t.Context(), api.EventFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "notifications-dropped" {
			if count++; e.Message != "webhook x is no target of notifications any more: nobody else is told of the 2 events that it may not have got" {
				t.Error(e.Message)
			}
		}
	}
	if count != 1 {
		t.Errorf("told %d times", count)
	}
}

// TestHeardIsStoredSeldom: deliveries cost a transaction every half minute at
// most, and none while nothing is delivered.
func TestHeardIsStoredSeldom(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	revision := func() uint64 {
		var row store.Row[heardRecord]
		_ = db.View(func(tx *store.Tx) (err error) { row, err = heardTable.Get(tx, only); return err })
		return row.Revision
	}
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(db, "a", slog.New(slog.DiscardHandler), func(notify.Event) {})
		var mu sync.Mutex
		ended := 0
		j.heard = func() []notify.Heard {
			mu.Lock()
			defer mu.Unlock()
			return []notify.Heard{{Key: "k", Ended: ended, Position: uint64(ended)}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go j.keep(ctx)
		for range 600 { // ten minutes
			time.Sleep(time.Second)
			mu.Lock()
			ended++
			mu.Unlock()
		}
		synctest.Wait()
		busy := revision()
		if busy < 19 || busy > 21 {
			t.Errorf("stored %d times in ten minutes", busy)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if idle := revision(); idle > busy+1 {
			t.Errorf("stored %d times while nothing was delivered", idle-busy)
		}
	})
}

// TestOlderAgentReadsTheEvents: the version before knows nothing of the fields
// that were added to an event.
func TestOlderAgentReadsTheEvents(t *testing.T) {
	type older struct {
		Time     time.Time         `msgpack:"time"`
		Kind     string            `msgpack:"kind"`
		Guest    string            `msgpack:"guest"`
		Severity string            `msgpack:"severity"`
		Message  string            `msgpack:"message"`
		Detail   map[string]string `msgpack:"detail"`
	}
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	d := newDesk(t, db)
	d.alarms.set("late", "web", true, "no checkpoint")
	d.journal.flush()
	if err := db.View(func(tx *store.Tx) error {
		e, err := store.NewLog[older]("events").Last(tx)
		if v := e.Value; err == nil && (v.Kind != "late" || v.Guest != "web" || v.Severity != alarm || v.Message != "no checkpoint" || v.Time.IsZero()) {
			t.Errorf("it reads %+v", v)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
