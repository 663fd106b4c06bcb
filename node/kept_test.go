package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/vm"
)

func TestKeptPolicy(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(1e9, 0)
	ages := []time.Duration{time.Hour, 3 * day, 8 * day, 30 * day, 60 * day}
	var list []keptDisks // the newest first
	for i, age := range ages {
		list = append(list, keptDisks{Epoch: uint64(10 - i), Since: now.Add(-age)})
	}
	for _, c := range []struct {
		config Config
		want   string // epochs that may go; "refused"
	}{
		{Config{}, "[8 7 6]"},
		{Config{KeptCopies: "4"}, "[6]"},
		{Config{KeptCopies: "0"}, "[8 7 6]"},
		{Config{KeptCopies: "0", KeptFor: time.Minute}, "[10 9 8 7 6]"},
		{Config{KeptFor: 31 * day}, "[6]"},
		{Config{KeptCopies: "all"}, "[]"},
		{Config{KeptCopies: "all", KeptFor: time.Minute}, "[]"},
		{Config{KeptCopies: "-1"}, "refused"},
		{Config{KeptCopies: "some"}, "refused"},
		{Config{KeptFor: -time.Second}, "refused"},
	} {
		policy, err := c.config.keptPolicy()
		got := []uint64{}
		for _, k := range policy.removable(list, now) {
			got = append(got, k.Epoch)
		}
		if said := fmt.Sprint(got); err == nil && said != c.want || (err != nil) != (c.want == "refused") {
			t.Errorf("%+v: %v, %v; want %s", c.config, said, err, c.want)
		}
	}
}

// keeper is a node with a guest of which disks are kept.
func keeper(t *testing.T, owner ha.NodeID) (*desk, *guest) {
	t.Helper()
	dir := t.TempDir()
	db := openDB(t, filepath.Join(dir, "db"))
	t.Cleanup(func() { db.Close() })
	d := newDesk(t, db)
	n := &Node{config: Config{Name: "a", StateDir: dir}, db: db, journal: d.journal, alarms: d.alarms, log: slog.New(slog.DiscardHandler), decider: newDecider()}
	n.neighbour = &neighbour{db: db, alarms: d.alarms, journal: d.journal, log: n.log}
	n.exchange = &exchange{kick: make(chan struct{}, 1)}
	n.guests = newGuests(n)
	record := guestRecord{Spec: vm.Spec{Name: "web"}}
	record.Spec.Protection.Level = vm.ProtectResume
	g := newGuest(n, "11111111-2222-4333-8444-555555555555", record, placeRecord{})
	g.owner = owner
	n.guests.byID[g.id] = g
	for _, epoch := range []int{9, 10, 3} { // not in the order of their names
		path := filepath.Join(g.layout.State, fmt.Sprintf("%s%d", keptPrefix, epoch))
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "d0.raw"), []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"disks", keptPrefix + "x", keptPrefix + "2" + goneSuffix} {
		if err := os.MkdirAll(filepath.Join(g.layout.State, other), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return d, g
}

func (g *guest) keptEpochs(t *testing.T) (epochs []uint64) {
	t.Helper()
	list, err := g.kept()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		epochs = append(epochs, k.Epoch)
		if k.Bytes < 1<<20 || time.Since(k.Since) > time.Hour {
			t.Errorf("%+v", k)
		}
	}
	return epochs
}

// TestPruneAtTheOwner: nothing goes before the replica is complete, what goes
// is named in an event, and a removal that was cut off is finished.
func TestPruneAtTheOwner(t *testing.T) {
	d, g := keeper(t, "a")
	policy := keptPolicy{newest: 1, least: 0}
	for _, phase := range []string{"none", "resync", "outdated"} {
		g.status.phase = phase
		g.pruneKept(t.Context(), policy)
		if got := g.keptEpochs(t); !slices.Equal(got, []uint64{10, 9, 3}) {
			t.Errorf("%s: kept are %v", phase, got)
		}
	}
	g.status.phase = "synced"
	g.pruneKept(t.Context(), keptPolicy{newest: 1, least: time.Hour})
	if got := g.keptEpochs(t); len(got) != 3 || len(d.told) != 0 {
		t.Errorf("young ones: kept are %v, told %q", got, d.told)
	}
	g.pruneKept(t.Context(), policy)
	if got := g.keptEpochs(t); !slices.Equal(got, []uint64{10}) {
		t.Errorf("kept are %v", got)
	}
	d.want(t, "removal", nil, []string{"web/kept-removed", "web/kept-removed"})
	page, err := d.journal.after(0)
	if err != nil || len(page) != 2 || !strings.Contains(page[0].Message, "epoch 9") || !strings.Contains(page[0].Message, keptPrefix+"9") || !strings.Contains(page[0].Message, "1 MiB") {
		t.Errorf("%+v, %v", page, err)
	}
	g.sweepKept()
	if _, err := os.Stat(filepath.Join(g.layout.State, keptPrefix+"2"+goneSuffix)); !os.IsNotExist(err) {
		t.Errorf("a removal that was begun: %v", err)
	}
	if _, err := os.Stat(filepath.Join(g.layout.State, "disks")); err != nil {
		t.Errorf("the guest's own disks: %v", err)
	}
}

// TestPruneAtTheStandby goes by the lease core: the replica must be ready, not
// outdated, and its owner heard.
func TestPruneAtTheStandby(t *testing.T) {
	_, g := keeper(t, "b")
	n := g.n
	cluster := ha.Cluster{Gen: 1, Nodes: [2]ha.NodeID{"a", "b"}, Mode: ha.ModeNone, By: "b"}
	record := ha.Record{Guest: ha.GuestID(g.id), Epoch: 4, Rev: 1, Owner: "b", Standby: "a", Run: true, Level: ha.LevelResume, Outdated: true}
	core, err := ha.NewCore(ha.Setup{Self: "a", Boot: 1, Timing: ha.DefaultTiming(), Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	n.decider.core, n.decider.tick, n.decider.log, n.decider.db = core, time.Hour, n.log, n.db
	n.decider.notice, n.decider.send, n.decider.guests = func(ha.Action) {}, func(ha.NodeID, ha.Message) {}, n.guests
	defer start(t.Context(), n.decider.run)()
	seq := uint64(0)
	tell := func(events ...ha.Event) {
		for _, e := range events {
			n.decider.tell(e)
		}
		for done := false; !done; { // a query may come before events that wait
			done = len(n.decider.events) == 0
			if err := n.decider.inspect(context.Background(), func(*ha.Core) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	beat := func() ha.Event {
		seq++
		return ha.Received{Message: ha.Heartbeat{From: "b", Boot: 1, Seq: seq, Cluster: cluster, Renewals: []ha.Record{record}}}
	}
	prune := func(step string, want ...uint64) {
		t.Helper()
		g.pruneKept(t.Context(), keptPolicy{newest: 1})
		if got := g.keptEpochs(t); !slices.Equal(got, want) {
			t.Errorf("%s: kept are %v, want %v", step, got, want)
		}
	}
	prune("the owner was not heard", 10, 9, 3)
	tell(beat())
	candidate := ha.CandidateState{Guest: ha.GuestID(g.id), Ready: true, Epoch: 4, Sequence: 9}
	tell(candidate)
	prune("the replica is outdated", 10, 9, 3)
	record.Outdated, record.Rev = false, 2
	tell(beat(), ha.CandidateState{Guest: candidate.Guest})
	prune("it is not ready", 10, 9, 3)
	tell(candidate)
	prune("it is complete", 10)
}

// TestKeptView: what the peer keeps is shown, too.
func TestKeptView(t *testing.T) {
	_, g := keeper(t, "a")
	g.n.heard(nodeState{Node: "b"}, map[string][]keptDisks{g.id: {{Epoch: 7, Path: "/p", Bytes: 5}}})
	view := g.keptView()
	if len(view) != 4 || view[0].Node != "a" || view[0].Epoch != 10 || view[3] != (api.Kept{Node: "b", Epoch: 7, Path: "/p", Bytes: 5, Since: view[3].Since}) {
		t.Errorf("%+v", view)
	}
	err := g.n.RemoveKept(t.Context(), "web", 7, true)
	if api.AsError(err).Code != api.NotFound {
		t.Errorf("those of the peer, here: %v", err)
	}
	if err := g.n.RemoveKept(t.Context(), "web", 9, false); err != nil {
		t.Error(err)
	}
	if got := g.keptEpochs(t); !slices.Equal(got, []uint64{10, 3}) {
		t.Errorf("kept are %v", got)
	}
}
