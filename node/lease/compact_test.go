package lease

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"vmctl/ha"
)

// Of a kept heartbeat that is too long to be packed equal names must be one
// string, and lists have no room to spare.
func TestKeptHeartbeatIsCompact(t *testing.T) {
	sent := everyMessage[0].(ha.Heartbeat)
	sent.Cluster.Nodes, sent.Cluster.Witness = [2]ha.NodeID{"host-a", "host-b"}, "witness-1"
	record := sent.Renewals[0]
	record.Owner, record.Standby, record.Arbiter = "host-a", "host-b", "witness-1"
	sent.Renewals = []ha.Record{record, record, record}
	sent.Renewals[2].Guest = ha.GuestID(strings.Repeat("g", maxPacked))
	sent.Handovers = []ha.Record{record}
	out, in := NewEncoder(2), NewDecoder("a")
	_, message := travel(t, &out, &in, sent)
	if !reflect.DeepEqual(message, sent) {
		t.Fatalf("it came as %+v", message)
	}
	kept, long := in.last.(ha.Heartbeat)
	if !long || in.kept != "" {
		t.Fatalf("kept: %T, %q", in.last, in.kept)
	}
	if n := cap(kept.Renewals) + cap(kept.Handovers); n != 4 {
		t.Errorf("room for %d records", n)
	}
	for _, r := range append(kept.Renewals, kept.Handovers...) {
		for want, got := range map[ha.NodeID]ha.NodeID{kept.Cluster.Nodes[0]: r.Owner, kept.Cluster.Nodes[1]: r.Standby, kept.Cluster.Witness: r.Arbiter} {
			if unsafe.StringData(string(got)) != unsafe.StringData(string(want)) {
				t.Errorf("%s has a string of its own", got)
			}
		}
	}
}
