package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/ha"
	"vmctl/node/notify"
	"vmctl/store"
)

// desk is a journal with what it told and the alarms that stand on it.
type desk struct {
	db      *store.DB
	journal *journal
	alarms  *alarms

	mu   sync.Mutex
	told []string
}

func openDB(t *testing.T, path string) *store.DB {
	t.Helper()
	db, err := store.Open(path, store.Options{Schema: schema, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// newDesk is the desk of an agent that has just been started on a store.
func newDesk(t *testing.T, db *store.DB) *desk {
	t.Helper()
	d := &desk{db: db}
	d.journal = newJournal(db, "a", slog.New(slog.DiscardHandler), func(e notify.Event) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told = append(d.told, strings.TrimPrefix(e.VM+"/", "/")+e.Kind+string(e.State))
	})
	d.alarms = newAlarms(d.journal)
	if err := d.alarms.load(db); err != nil {
		t.Fatal(err)
	}
	return d
}

// kinds lists the alarms that are raised.
func (d *desk) kinds() (list []string) {
	for _, a := range d.alarms.list() {
		list = append(list, strings.TrimPrefix(a.VM+"/", "/")+a.Kind)
	}
	return list
}

func (d *desk) want(t *testing.T, step string, kinds, told []string) {
	t.Helper()
	if got := d.kinds(); !slices.Equal(got, kinds) {
		t.Errorf("%s: raised are %q, want %q", step, got, kinds)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.told, told) {
		t.Errorf("%s: told was %q, want %q", step, d.told, told)
	}
	d.told = nil
}

// TestAlarms: both ends of an alarm are told, once each, and an agent takes over
// what its forerunner left raised: those that last were told, and it ends the
// others, whose end nobody saw.
func TestAlarms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	d := newDesk(t, db)
	d.alarms.set("late", "web", false, "")
	d.alarms.set("late", "web", true, "old")
	d.alarms.set("late", "web", true, "older")
	d.alarms.set("late", "db", true, "old")
	d.alarms.set("clock", "", true, "went back")
	d.want(t, "begin", []string{"clock", "db/late", "web/late"}, []string{"web/lateon", "db/lateon", "clockon"})
	if text := d.alarms.list()[2].Text; text != "older" {
		t.Errorf("the alarm's text is %q", text)
	}
	d.alarms.set("clock", "", false, "")
	d.want(t, "end", []string{"db/late", "web/late"}, []string{"clockoff"})
	d.alarms.set("odd", "db", true, "x")
	d.alarms.forget("db")
	slices.Sort(d.told)
	d.want(t, "a removed guest", []string{"web/late"}, []string{"db/lateoff", "db/oddoff", "db/oddon"})
	d.alarms.set("ended", "", true, "x")
	since := d.alarms.list()[1].Since.UTC()
	d.journal.flush()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = openDB(t, path)
	defer db.Close()
	next := newDesk(t, db)
	next.want(t, "the next agent", []string{"ended", "web/late"}, nil)
	if got := next.alarms.list()[1].Since.UTC(); !got.Equal(since) {
		t.Errorf("since %v, it was %v", got, since)
	}
	next.alarms.set("late", "web", true, "still")
	next.want(t, "it lasts", []string{"ended", "web/late"}, nil)
	synctest.Test(t, func(t *testing.T) {
		go next.alarms.expire(t.Context())
		time.Sleep(carryFor - time.Second)
		synctest.Wait()
		next.want(t, "too soon", []string{"ended", "web/late"}, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		next.want(t, "whose end nobody saw", []string{"web/late"}, []string{"endedoff"})
	})
	next.journal.flush()
	if last := newDesk(t, db); !slices.Equal(last.kinds(), []string{"web/late"}) {
		t.Errorf("stored are %q", last.kinds())
	}
}

// TestNeighbour: a peer that is away because someone wanted it is no failure,
// and one that fails is one, in whatever order the news come.
func TestNeighbour(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	d := newDesk(t, db)
	fresh := func() *neighbour {
		return &neighbour{db: db, alarms: d.alarms, journal: d.journal, log: slog.New(slog.DiscardHandler)}
	}
	p := fresh()
	in := func(version uint64, maintenance, down bool) {
		p.heard(nodeState{Node: "b", Version: version, Maintenance: maintenance, Down: down})
	}
	in(0, false, false)
	p.silent(true, "b was not heard")
	d.want(t, "a failure", []string{"peer-lost"}, []string{"peer-loston"})
	p.silent(false, "")
	d.want(t, "it is back", nil, []string{"peer-lostoff"})
	p.silent(true, "b was not heard")
	d.want(t, "a failure in which the agent dies", []string{"peer-lost"}, []string{"peer-loston"})
	p = fresh()
	if err := p.load("b"); err != nil {
		t.Fatal(err)
	}
	d.want(t, "the next agent knows no better", []string{"peer-lost"}, nil)
	in(0, false, false)
	d.want(t, "until it hears of the peer", nil, []string{"peer-lostoff"})
	if p.refusal() != nil {
		t.Error("a peer in service refuses guests")
	}

	in(3, true, false)
	d.want(t, "maintenance", []string{"peer-maintenance"}, []string{"peer-maintenanceon"})
	in(2, false, false) // late
	d.want(t, "a late word", []string{"peer-maintenance"}, nil)
	if err := p.refusal(); err == nil || !strings.Contains(err.Error(), "b is in maintenance") {
		t.Errorf("a peer in maintenance: %v", err)
	}
	p.silent(true, "b was not heard")
	d.want(t, "away", []string{"peer-maintenance"}, []string{"peer-away"})

	p = fresh() // this agent is restarted meanwhile
	if err := p.load("b"); err != nil {
		t.Fatal(err)
	}
	p.silent(true, "b was not heard")
	d.want(t, "away, after a restart here", []string{"peer-maintenance"}, []string{"peer-away"})
	in(4, false, false) // it says so before it is heard
	d.want(t, "the end of maintenance", nil, []string{"peer-maintenanceoff"})
	p.silent(false, "")
	d.want(t, "heard again", nil, []string{"peer-back"})
	p.silent(true, "b was not heard")
	d.want(t, "a failure after that", []string{"peer-lost"}, []string{"peer-loston"})
	p.silent(false, "")
	d.told = nil

	in(5, false, true)
	p.silent(true, "b was not heard")
	d.want(t, "shut down", []string{"peer-off"}, []string{"peer-offon", "peer-away"})
	if got := p.announced(); got != "b was shut down" || p.word() != "down" {
		t.Errorf("announced %q, %q", got, p.word())
	}
	if err := p.forget("b"); err != nil { // the pair is made anew
		t.Fatal(err)
	}
	in(0, false, false)
	if got := fresh(); got.load("b") != nil || got.announced() != "" {
		t.Errorf("a new peer of that name: %q", got.announced())
	}
}

// TestUnprotectedSaysWhy: the alarm of a guest without a replica names what the
// peer announced.
func TestUnprotectedSaysWhy(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	d := newDesk(t, db)
	n := &Node{alarms: d.alarms, journal: d.journal, neighbour: &neighbour{db: db, alarms: d.alarms, journal: d.journal}}
	n.guests = newGuests(n)
	n.neighbour.heard(nodeState{Node: "b", Maintenance: true, Version: 1})
	n.notice(ha.Alarm{Kind: ha.AlarmUnprotected, Guest: "u", On: true, Text: "not in sync"})
	n.notice(ha.Alarm{Kind: ha.AlarmPeer, On: true, Text: "silent"})
	d.want(t, "unprotected", []string{"peer-maintenance", "u/unprotected"}, []string{"peer-maintenanceon", "u/unprotectedon", "peer-away"})
	if text := d.alarms.list()[1].Text; text != "not in sync: b is in maintenance" {
		t.Error(text)
	}
	for _, kind := range []ha.AlarmKind{ha.AlarmWitness, ha.AlarmMode, ha.AlarmLeaseLow, ha.AlarmLeaseOut, ha.AlarmStorage, ha.AlarmClock, ha.AlarmPromise} {
		n.notice(ha.Alarm{Kind: kind, On: true, Text: "x"})
		n.notice(ha.Alarm{Kind: kind})
		d.told = d.told[max(0, len(d.told)-2):]
		d.want(t, string(kind), []string{"peer-maintenance", "u/unprotected"}, []string{string(kind) + "on", string(kind) + "off"})
	}
}

func TestLateness(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		synced   bool
		age      time.Duration
		interval time.Duration
		late     bool
	}{
		{true, 29 * time.Second, time.Second, false}, {true, 31 * time.Second, time.Second, true}, {false, time.Hour, time.Second, false},
		{true, time.Minute, 5 * time.Second, false}, {true, 101 * time.Second, 5 * time.Second, true},
	} {
		if _, late := lateness(c.synced, now.Add(-c.age), c.interval, now); late != c.late {
			t.Errorf("%+v: %v", c, late)
		}
	}
	if _, late := lateness(true, time.Time{}, time.Second, now); late {
		t.Error("no checkpoint yet is late")
	}
}

var errDisk = errors.New("the peer's disk is full")

// TestResyncFails: only attempts against a peer that is heard count.
func TestResyncFails(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	d := newDesk(t, db)
	n := &Node{config: Config{Name: "a"}, alarms: d.alarms, journal: d.journal, db: db, decider: newDecider(), log: slog.New(slog.DiscardHandler)}
	core, err := ha.NewCore(ha.Setup{Self: "a", Boot: 1, Timing: ha.DefaultTiming(), Cluster: ha.Cluster{Nodes: [2]ha.NodeID{"a", "b"}, Mode: ha.ModeNone}})
	if err != nil {
		t.Fatal(err)
	}
	n.decider.core, n.decider.tick, n.decider.log, n.decider.db = core, time.Hour, n.log, db
	n.decider.notice, n.decider.send = func(ha.Action) {}, func(ha.NodeID, ha.Message) {}
	n.guests = newGuests(n)
	n.decider.guests = n.guests
	defer start(t.Context(), n.decider.run)()
	g := newGuest(n, "u", guestRecord{}, placeRecord{})
	now, f := time.Unix(1000, 0), failures{}
	fail := func(after time.Duration) {
		now = now.Add(after)
		f = g.countFailure(f, errDisk, now)
	}
	for range 5 {
		fail(failingFor)
	}
	if len(d.kinds()) != 0 || f.count != 0 {
		t.Errorf("%+v without a peer: %q", f, d.kinds())
	}
	n.decider.tell(ha.Received{Message: ha.Heartbeat{From: "b", Boot: 1, Seq: 1, Cluster: core.Status().Cluster}})
	if err := n.decider.inspect(context.Background(), func(*ha.Core) {}); err != nil {
		t.Fatal(err)
	}
	for range 2 * mostFailures { // many, and soon
		fail(time.Second)
	}
	g.status.phase = "synced" // it worked for a while
	fail(failingFor)
	g.status.phase = "outdated"
	fail(failingFor)
	if len(d.kinds()) != 0 {
		t.Errorf("too early: %q, %+v", d.kinds(), f)
	}
	fail(time.Second)
	if got := fmt.Sprint(d.kinds()); got != "[resync-failing]" || !strings.Contains(d.alarms.list()[0].Text, errDisk.Error()) {
		t.Errorf("after %+v: %s", f, got)
	}
	g.endAlarms(alarmResync)
	if len(d.kinds()) != 0 {
		t.Errorf("after its end: %q", d.kinds())
	}
}
