package witness

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// voter is a node that speaks the lease protocol by hand.
type voter struct {
	id   *peer.Identity
	conn *wire.Conn
	in   lease.Decoder
	seq  uint64
}

func dial(t *testing.T, id *peer.Identity, addr, dir string) *voter {
	t.Helper()
	served(addr)
	conn, err := id.Dial(t.Context(), remote(t, addr, dir), lease.Purpose, "", lease.Options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &voter{id: id, conn: conn, in: lease.NewDecoder(witnessID(t, dir))}
}

func witnessID(t *testing.T, dir string) ha.NodeID {
	return ha.NodeID(peer.WitnessID(readToken(t, dir).Fingerprint))
}

func remote(t *testing.T, addr, dir string) peer.Remote {
	return peer.Remote{Addr: addr, Fingerprint: readToken(t, dir).Fingerprint}
}

// Kinds of the lease protocol, as they travel.
const (
	kindHeartbeat wire.Kind = 16
	kindAsk       wire.Kind = 18
	kindClaim     wire.Kind = 20
)

// call says one message and returns the answer.
func call[T ha.Message](t *testing.T, v *voter, kind wire.Kind, message any) (reply T) {
	t.Helper()
	if err := v.conn.Send(kind, message); err != nil {
		t.Fatal(err)
	}
	reply, err := answer[T](v)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// answer waits for a message of the witness.
func answer[T ha.Message](v *voter) (reply T, err error) {
	kind, body, err := v.conn.Receive()
	if err != nil {
		return reply, err
	}
	message, err := v.in.Message(kind, body)
	if err != nil {
		return reply, err
	}
	reply, ok := message.(T)
	if !ok {
		return reply, fmt.Errorf("a reply of another kind: %+v", message)
	}
	return reply, nil
}

// heartbeat renews guests and returns when all were granted.
func (v *voter) heartbeat(t *testing.T, renewals ...ha.Record) ha.Ack {
	t.Helper()
	v.seq++
	ack := call[ha.Ack](t, v, kindHeartbeat, ha.Heartbeat{From: ha.NodeID(v.id.Node), Boot: 1, Seq: v.seq, Renewals: renewals})
	for _, grant := range ack.Grants {
		if !grant.OK {
			t.Fatalf("not granted: %+v", grant)
		}
	}
	return ack
}

func (v *voter) ask(t *testing.T, ask ha.Ask) ha.AskReply {
	t.Helper()
	v.seq++
	ask.From, ask.Boot, ask.Seq = ha.NodeID(v.id.Node), 1, v.seq
	return call[ha.AskReply](t, v, kindAsk, ask)
}

func (v *voter) claim(t *testing.T, claim ha.Claim) ha.ClaimReply {
	t.Helper()
	v.seq++
	claim.From, claim.Boot, claim.Seq = ha.NodeID(v.id.Node), 1, v.seq
	return call[ha.ClaimReply](t, v, kindClaim, claim)
}

func TestClustersDoNotMix(t *testing.T) {
	dir := t.TempDir()
	addr, stop := start(t, dir)
	shop, bank := found(t, "shop", "a"), found(t, "bank", "a") // both have a node a and a guest g
	for _, id := range []*peer.Identity{shop, bank} {
		if err := enrol(id, addr, readToken(t, dir)); err != nil {
			t.Fatal(err)
		}
	}
	dial(t, shop, addr, dir).heartbeat(t, ha.Record{Guest: "g", Epoch: 5, Owner: "a", Standby: "b"})
	dial(t, bank, addr, dir).heartbeat(t, ha.Record{Guest: "g", Epoch: 2, Owner: "a", Standby: "b"}, ha.Record{Guest: "h", Epoch: 1, Owner: "a"})
	check := func(when string) {
		t.Helper()
		shopB, bankB := dial(t, second(t, shop, "b"), addr, dir), dial(t, second(t, bank, "b"), addr, dir)
		if got := shopB.ask(t, ha.Ask{Guest: "g", Epoch: 6}).Record.Epoch; got != 5 {
			t.Errorf("%s: shop's g is at epoch %d", when, got)
		}
		if got := bankB.ask(t, ha.Ask{Guest: "g", Epoch: 3}).Record.Epoch; got != 2 {
			t.Errorf("%s: bank's g is at epoch %d", when, got)
		}
		if reply := shopB.ask(t, ha.Ask{Guest: "h", Epoch: 2}); reply.Verdict != ha.Unknown {
			t.Errorf("%s: shop is told of bank's guest: %+v", when, reply)
		}
	}
	check("at first")
	stop()
	addr, _ = start(t, dir)
	check("after a restart")
}

func TestStrangersAreRefused(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	shop, evil := found(t, "shop", "a"), found(t, "shop", "b")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	owner := dial(t, shop, addr, dir)
	owner.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a", Standby: "b"})

	posing := *evil
	posing.Cluster = shop.Cluster // the certificate stays its own
	for name, id := range map[string]*peer.Identity{"another cluster": evil, "another authority": &posing} {
		conn, err := id.Dial(t.Context(), remote(t, addr, dir), lease.Purpose, "", lease.Options())
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, wire.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	renamed := *second(t, shop, "c")
	renamed.Node = "b" // a member under another member's name
	if conn, err := renamed.Dial(t.Context(), remote(t, addr, dir), lease.Purpose, "", lease.Options()); err == nil {
		conn.Close()
		t.Error("a node was taken for another")
	}

	// On its own connection a member cannot speak in another's name.
	liar := dial(t, second(t, shop, "b"), addr, dir)
	if err := liar.conn.Send(kindHeartbeat, ha.Heartbeat{From: "a", Boot: 9, Seq: 9}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := liar.conn.Receive(); err == nil {
		t.Error("a lie was answered")
	}
	// A claim while the owner's lease lasts is refused; the owner goes on.
	standby := dial(t, second(t, shop, "b"), addr, dir)
	if reply := standby.claim(t, ha.Claim{ID: 1, To: 1, Guest: "g", Prior: 1, Epoch: 2}); reply.OK {
		t.Errorf("a claim under a lease: %+v", reply)
	}
	owner.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a", Standby: "b"})
}
