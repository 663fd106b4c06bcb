package node

import (
	"log/slog"
	"path/filepath"
	"testing"

	"vmctl/node/peer"
	"vmctl/store"
)

// TestWhoHasLeftLearnsNothing: a comparison may be under way when a node leaves its
// cluster; what the other says in it would bring the other's guests back.
func TestWhoHasLeftLearnsNothing(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "db"), store.Options{Schema: schema, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var added []string
	x := &exchange{
		db: db, members: &membership{db: db}, changed: func(id string, _ guestRecord) { added = append(added, id) },
		self: func() nodeInfo { return nodeInfo{} }, tell: func() (nodeState, map[string][]keptDisks) { return nodeState{}, nil },
	}
	said := knowledge{Guests: map[string]guestRecord{"g": {Epoch: 1, Version: 1}}}
	for _, member := range []bool{false, true} {
		if member {
			x.members.identity = &peer.Identity{}
		}
		err := x.learn(said)
		kept, failed := x.collect()
		if failed != nil {
			t.Fatal(failed)
		}
		if (err == nil) != member || len(added) > 0 != member || len(kept.Guests) > 0 != member {
			t.Errorf("member %t: %v, added %q, kept %v", member, err, added, kept.Guests)
		}
	}
}
