package lease

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unsafe"

	"vmctl/ha"
)

// Every heartbeat comes out of its packed form as it went in, with fields that
// are added one day.
func TestPackedHeartbeatIsExact(t *testing.T) {
	names := []string{"", "a", "host-b", "none", "resume", "!fence", "witness", "witness-1", "\x00\xff", strings.Repeat("n", 200)}
	random := rand.New(rand.NewPCG(1, 2))
	packed, long := 0, 0
	check := func(m ha.Heartbeat, few uint8) bool {
		few %= 6
		m.Renewals, m.Handovers = m.Renewals[:min(len(m.Renewals), int(few))], m.Handovers[:min(len(m.Handovers), 2)]
		for _, list := range [][]ha.Record{m.Renewals, m.Handovers} {
			for i := range list {
				r := &list[i]
				for _, id := range []*ha.NodeID{&r.Owner, &r.Standby, &r.Arbiter, &r.Bound} {
					*id = ha.NodeID(names[random.IntN(len(names))])
				}
				r.Guest = ha.GuestID(names[random.IntN(len(names))])
				r.Level = ha.Level(names[random.IntN(len(names))])
			}
		}
		m.From = ha.NodeID(names[random.IntN(len(names))])
		m.Cluster.Bias = m.From
		m.Cluster.FenceDelay = -time.Duration(random.Int64())
		kept := pack(&m)
		if kept == "" {
			long++
			return true
		}
		packed++
		return reflect.DeepEqual(unpack(m.From, kept), m)
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
	if packed < 500 || long < 10 {
		t.Errorf("%d heartbeats were packed, %d were too long", packed, long)
	}
	for _, m := range []ha.Heartbeat{{}, {Renewals: []ha.Record{}}, {Handovers: []ha.Record{{}}}} {
		if got := unpack(m.From, pack(&m)); !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v", m, got)
		}
	}
	many := ha.Heartbeat{From: "a"}
	for i := range 30 {
		many.Renewals = append(many.Renewals, ha.Record{Guest: ha.GuestID(rune('A' + i)), Owner: "a", Standby: ha.NodeID(rune('a' + i))})
	}
	if got := unpack("a", pack(&many)); !reflect.DeepEqual(got, many) {
		t.Errorf("with many names: %+v", got)
	}
}

// A witness of a thousand pairs keeps every one's last heartbeat: it must be
// small, and the names in its records no strings of their own.
func TestKeptHeartbeatIsPacked(t *testing.T) {
	sent := ha.Heartbeat{From: "shop-host-a", Boot: 7, Seq: 1 << 20, To: 9, Cluster: ha.Cluster{
		Gen: 1, By: "shop-host-a", Nodes: [2]ha.NodeID{"shop-host-a", "shop-host-b"}, Mode: ha.ModeWitness, Witness: "witness-0123456789ab",
	}}
	for _, guest := range []ha.GuestID{"2b1c1f0e-0a5f-4dd2-9d5c-0a3b5f6c7d8e", "91d0d3c5-1c7f-4e0b-8a64-5b2f9d3c1a77"} {
		sent.Renewals = append(sent.Renewals, ha.Record{
			Guest: guest, Epoch: 1, Rev: 3, Owner: "shop-host-a", Standby: "shop-host-b", Arbiter: "witness-0123456789ab", Run: true, Level: ha.LevelResume,
		})
	}
	out, in := NewEncoder(2), NewDecoder("shop-host-a")
	for seq := range uint64(3) {
		sent.Seq = seq
		_, message := travel(t, &out, &in, sent)
		if !reflect.DeepEqual(message, sent) {
			t.Fatalf("it came as %+v", message)
		}
		first := uintptr(unsafe.Pointer(unsafe.StringData(in.kept)))
		for _, r := range message.(ha.Heartbeat).Renewals {
			for _, name := range []string{string(r.Guest), string(r.Standby), string(r.Arbiter)} {
				if at := uintptr(unsafe.Pointer(unsafe.StringData(name))); at < first || at >= first+uintptr(len(in.kept)) {
					t.Errorf("%s has a string of its own", name)
				}
			}
		}
	}
	if n := len(in.kept); n > 160 || in.last != nil {
		t.Errorf("%d bytes for two guests, and %v", n, in.last)
	}
}
