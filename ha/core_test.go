package ha

import (
	"strings"
	"testing"
	"time"
)

func ackFor(b *bench, hb Heartbeat, from NodeID) Ack {
	ack := Ack{From: from, FromBoot: 1, Boot: hb.Boot, Seq: hb.Seq}
	for _, r := range hb.Renewals {
		ack.Grants = append(ack.Grants, Grant{Guest: r.Guest, Epoch: r.Epoch, Rev: r.Rev, OK: true})
	}
	return ack
}

// A lease counts from the moment the acknowledged heartbeat was sent.
func TestLeaseCountsFromSending(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.down[nodeB], b.down[third] = true, true
	b.feed(nodeA, Own{Record: Record{Guest: "web", Run: true, Level: LevelResume}})
	sent, _ := last[Send](b, nodeA)
	hb := sent.Message.(Heartbeat)
	at := b.now
	b.run(time.Second)
	b.feed(nodeA, Received{Message: ackFor(b, hb, nodeB)})
	renew, ok := last[Renew](b, nodeA)
	if want := at + Time(2*time.Second); !ok || renew.Deadline != want {
		t.Fatalf("deadline %d, want %d", renew.Deadline, want)
	}
	b.run(3 * time.Second)
	b.all[nodeA] = nil
	b.feed(nodeA, Received{Message: ackFor(b, hb, third)})
	if _, ok := last[Renew](b, nodeA); ok {
		t.Error("an acknowledgement of a heartbeat older than a lease gave one")
	}
}

func TestForeignAcknowledgementsDoNotCount(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.down[nodeB], b.down[third] = true, true
	b.feed(nodeA, Own{Record: Record{Guest: "web", Run: true, Level: LevelResume}})
	sent, _ := last[Send](b, nodeA)
	hb := sent.Message.(Heartbeat)
	stale := hb
	stale.Boot = 0
	for name, m := range map[string]Message{
		"another witness":        ackFor(b, hb, "witness-9"),
		"an earlier incarnation": ackFor(b, stale, nodeB),
		"nobody":                 ackFor(b, hb, ""),
	} {
		b.feed(nodeA, Received{Message: m})
		if _, ok := last[Renew](b, nodeA); ok {
			t.Errorf("an acknowledgement by %s gave a lease", name)
		}
	}
}

// The clock going back neither shortens a wait nor lengthens a lease.
func TestClockGoesBack(t *testing.T) {
	b := newBench(t, ModeNone)
	c := b.core[nodeA]
	c.Step(b.now+Time(second), Tick{})
	list := c.Step(b.now, Tick{})
	if c.now != b.now+Time(second) {
		t.Errorf("the core's time went back to %d", c.now)
	}
	found := false
	for _, a := range list {
		if alarm, ok := a.(Alarm); ok && alarm.Kind == AlarmClock && alarm.On {
			found = true
		}
	}
	if !found {
		t.Error("no alarm")
	}
}

// A node that learns from the witness that it owns a guest, without having
// promised, waits for the leases it gave itself.
func TestQuietAfterOwnAcknowledgements(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.guest()
	granted := b.now
	b.stop(nodeA)
	r := b.disk[nodeB]["web"].shared()
	r.Epoch, r.Rev, r.Owner, r.Standby = 2, 0, nodeB, nodeA
	b.witness.find("web").rec = r
	b.feed(nodeB, Received{Message: Ack{From: third, FromBoot: 1, Boot: 1, Seq: 1, Records: []Record{r}}})
	for {
		if _, ok := last[TakeOver](b, nodeB); ok {
			break
		}
		b.run(100 * time.Millisecond)
		if b.now-granted > Time(10*second) {
			t.Fatal("it never took over")
		}
	}
	if waited := b.now - granted; waited <= b.core[nodeB].window {
		t.Errorf("took over %v after its own acknowledgement", time.Duration(waited))
	}
}

// The same wait holds when the agent restarts in the middle of it.
func TestQuietOutlivesRestart(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.guest()
	b.stop(nodeA)
	r := b.disk[nodeB]["web"].shared()
	r.Epoch, r.Rev, r.Owner, r.Standby, r.Taking, r.Bound = 2, 1, nodeB, nodeA, true, third
	b.disk[nodeB]["web"] = r
	b.witness.find("web").rec = r.shared()
	b.all[nodeB] = nil
	start := b.now
	b.back(nodeB)
	b.run(4 * second)
	if _, ok := last[TakeOver](b, nodeB); !ok {
		t.Fatal("the takeover was forgotten")
	}
	for _, line := range strings.Split(b.log.String(), "\n") {
		if strings.Contains(line, "TakeOver web epoch 2") {
			if after := strings.TrimSpace(line[:8]); after < "5.90" {
				t.Errorf("took over at %s, %v after the start", after, time.Duration(b.now-start))
			}
		}
	}
}

// A promise outlives a restart, is claimed again, and ends by the answer.
func TestPromiseOutlivesRestart(t *testing.T) {
	for _, grant := range []bool{true, false} {
		b := newBench(t, ModeWitness)
		b.guest()
		b.stop(nodeA)
		b.part(nodeB, third)
		r := b.disk[nodeB]["web"]
		r.Promised = 2
		b.disk[nodeB]["web"] = r
		b.run(3 * second)
		b.stop(nodeB)
		b.back(nodeB)
		b.join(nodeA, nodeB)
		if !grant {
			b.back(nodeA)
			b.run(500 * time.Millisecond) // lives on the witness' leases
			if got := b.core[nodeA].Status().Guests[0]; got.Deadline <= b.now {
				t.Fatal("the witness does not renew")
			}
			if b.core[nodeB].find("web").rec.Promised != 2 {
				t.Fatal("the promise is gone")
			}
		}
		b.join(nodeB, third)
		b.run(second)
		rec := b.disk[nodeB]["web"]
		if rec.Promised != 0 || (rec.Owner == nodeB) != grant {
			t.Errorf("grant %v: ended as %+v", grant, rec)
		}
	}
}

// What the engine said while the store failed is processed later, and in order.
func TestEngineEventsSurviveStoreFailure(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.guest()
	b.all[nodeA] = nil
	b.broken[nodeA] = true
	b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
	b.feed(nodeA, SetRun{ID: 9, Guest: "web"})
	if reply, _ := last[Reply](b, nodeA); reply.ID != 9 || reply.Code != CodeStorage {
		t.Errorf("reply %+v, want a storage error", reply)
	}
	if _, ok := last[Detached](b, nodeA); ok {
		t.Fatal("detached without a stored record")
	}
	b.run(second)
	if b.disk[third]["web"].Outdated {
		t.Fatal("the witness heard what was never stored")
	}
	b.broken[nodeA] = false
	b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1, InSync: true})
	b.run(second)
	r := b.disk[nodeA]["web"]
	if r.Outdated || !r.Run || b.core[nodeA].Status().Storage == false {
		t.Errorf("ended as %+v, want in sync and running", r)
	}
	if r.Rev != 4 {
		t.Errorf("revision %d, want 4: both words, in order", r.Rev)
	}
}

// Store failures never let a message out, and durable actions come first.
func TestNothingLeavesBeforeItIsStored(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.guest()
	list := b.core[nodeA].Step(b.now, ReplicaState{Guest: "web", Epoch: 1})
	if _, ok := list[0].(Persist); !ok {
		t.Fatalf("the list begins with %T", list[0])
	}
	for _, a := range b.core[nodeA].Step(b.now, PersistFailed{Err: "x"}) {
		if _, ok := a.(Send); ok {
			t.Error("a message left after a failed store")
		}
	}
	list = b.core[nodeA].Step(b.now, Tick{})
	p, ok := list[0].(Persist)
	if !ok || !p.Record.Outdated || p.Record.Rev != 3 {
		t.Errorf("the next list begins with %+v", list[0])
	}
}

func TestRequests(t *testing.T) {
	own := func(id GuestID) Own { return Own{ID: 5, Record: Record{Guest: id, Run: true}} }
	cluster := func(change func(*Cluster)) SetCluster {
		c := Cluster{Gen: 2, By: nodeA, Nodes: [2]NodeID{nodeA, nodeB}, Mode: ModeWitness, Witness: third}
		change(&c)
		return SetCluster{ID: 5, Cluster: c}
	}
	for name, c := range map[string]struct {
		on   NodeID
		ev   Event
		code Code
		text string
	}{
		"own twice":              {nodeA, own("web"), CodeConflict, "known"},
		"own without id":         {nodeA, own(""), CodeInvalid, "id"},
		"forget unknown":         {nodeA, Forget{ID: 5, Guest: "x"}, CodeNotFound, ""},
		"forget the peer's":      {nodeB, Forget{ID: 5, Guest: "web"}, CodeNotOwner, "node-a"},
		"level unknown":          {nodeA, SetLevel{ID: 5, Guest: "web", Level: "gold"}, CodeInvalid, "gold"},
		"level":                  {nodeA, SetLevel{ID: 5, Guest: "web", Level: LevelFT}, OK, ""},
		"promote own":            {nodeA, Promote{ID: 5, Guest: "web", ConfirmPeerOff: true}, CodeConflict, "already"},
		"promote unconfirmed":    {nodeB, Promote{ID: 5, Guest: "web"}, CodeUnsafe, "confirm"},
		"promote, owner alive":   {nodeB, Promote{ID: 5, Guest: "web", ConfirmPeerOff: true}, CodeUnsafe, "alive"},
		"handover of the peer's": {nodeB, Handover{ID: 5, Guest: "web"}, CodeNotOwner, ""},
		"unknown mode":           {nodeA, cluster(func(c *Cluster) { c.Mode = "luck" }), CodeConflict, "luck"},
		"bias of a stranger":     {nodeA, cluster(func(c *Cluster) { c.Mode, c.Bias = ModeBias, third }), CodeConflict, "needs one of"},
		"endless fence delay":    {nodeA, cluster(func(c *Cluster) { c.Mode, c.FenceDelay = ModeFence, 2*time.Hour }), CodeConflict, "fence delay"},
		"witness without name":   {nodeA, cluster(func(c *Cluster) { c.Witness = "" }), CodeConflict, "needs"},
		"node as witness":        {nodeA, cluster(func(c *Cluster) { c.Witness = nodeB }), CodeConflict, "cannot"},
		"without itself":         {nodeA, cluster(func(c *Cluster) { c.Nodes[0] = "x" }), CodeConflict, "not among"},
		"old generation":         {nodeA, cluster(func(c *Cluster) { c.Gen = 1 }), CodeConflict, "newer"},
		"another peer":           {nodeA, cluster(func(c *Cluster) { c.Nodes[1] = "node-c" }), CodeConflict, "set the mode none first"},
		"leave with peer's":      {nodeB, cluster(func(c *Cluster) { c.Nodes[0] = "" }), CodeConflict, "still owns"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeWitness)
			b.guest()
			b.all[c.on] = nil
			b.feed(c.on, c.ev)
			n := 0
			for _, a := range b.all[c.on] {
				if r, ok := a.(Reply); ok {
					n++
					if r.ID != 5 || r.Code != c.code || !strings.Contains(r.Text, c.text) {
						t.Errorf("reply %+v, want code %q and %q", r, c.code, c.text)
					}
				}
			}
			if n != 1 {
				t.Errorf("%d replies", n)
			}
		})
	}
}

// A node that was alone goes on running its guests when a peer joins.
func TestJoin(t *testing.T) {
	c, err := NewCore(Setup{Self: nodeA, Boot: 1, Timing: DefaultTiming()})
	if err != nil {
		t.Fatal(err)
	}
	forever := false
	for _, a := range c.Step(1, Own{Record: Record{Guest: "web", Run: true, Level: LevelResume}}) {
		if r, ok := a.(Renew); ok && r.Deadline == Forever {
			forever = true
		}
	}
	if !forever {
		t.Fatal("a lone node's guest may not run at once")
	}
	c.Step(2, SetCluster{Cluster: Cluster{Gen: 1, Nodes: [2]NodeID{nodeA, nodeB}, Mode: ModeNone}})
	g := c.Status().Guests[0]
	if g.Standby != nodeB || !g.Outdated || g.Deadline != Forever {
		t.Errorf("after the join: %+v", g)
	}
}

// A guest that nobody may take over survives the loss of all other voters.
func TestUnprotectedGuestNeedsNoLease(t *testing.T) {
	b := newBench(t, ModeWitness)
	b.feed(nodeA, Own{Record: Record{Guest: "web", Run: true}})
	b.run(second)
	b.stop(nodeB)
	b.stop(third)
	b.run(5 * second)
	if got := b.core[nodeA].Status().Guests[0].Deadline; got != Forever {
		t.Errorf("deadline %d, want none", got)
	}
	b.feed(nodeA, SetLevel{Guest: "web", Level: LevelRestart})
	b.run(second)
	if got := b.core[nodeA].Status().Guests[0]; got.Bound != "" || got.Deadline != Forever {
		t.Errorf("bound to %q without a first lease", got.Bound)
	}
	b.back(third)
	b.run(second)
	if got := b.core[nodeA].Status().Guests[0]; got.Bound != third || got.Deadline == Forever {
		t.Errorf("still not bound: %+v", got)
	}
}

func TestBadSetups(t *testing.T) {
	for name, s := range map[string]Setup{
		"no name":        {Boot: 1, Timing: DefaultTiming()},
		"no incarnation": {Self: nodeA, Timing: DefaultTiming()},
		"no timing":      {Self: nodeA, Boot: 1},
		"foreign":        {Self: nodeA, Boot: 1, Timing: DefaultTiming(), Cluster: Cluster{Nodes: [2]NodeID{"x", "y"}}},
	} {
		if _, err := NewCore(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewWitness(WitnessSetup{Self: third, Timing: DefaultTiming()}); err == nil {
		t.Error("a witness without an incarnation is accepted")
	}
}

// What a former owner said before it knew that its guest was taken over and
// removed does not bring the guest back, although it arrives last.
func TestLateHeartbeatAfterRemoval(t *testing.T) {
	b := newBench(t, ModeBias)
	b.guest() // a's; b decides
	b.part(nodeA, nodeB)
	b.run(4 * second) // b took it over
	said := func(list []Action, what func(Message) bool) (found Message) {
		for _, a := range list {
			if send, ok := a.(Send); ok && what(send.Message) {
				found = send.Message
			}
		}
		return found
	}
	beat := func(m Message) bool { _, ok := m.(Heartbeat); return ok }
	late := said(b.all[nodeA], beat)
	b.feed(nodeB, Forget{Guest: "web"})
	told := said(b.all[nodeB], beat)
	ack := said(b.step(nodeA, Received{Message: told}), func(m Message) bool { _, ok := m.(Ack); return ok })
	b.step(nodeB, Received{Message: ack})
	if b.core[nodeB].find("web") != nil {
		t.Fatal("b still knows the removed guest")
	}
	b.step(nodeB, Received{Message: late})
	if g := b.core[nodeB].find("web"); g != nil {
		t.Errorf("it is back: %+v", g.rec)
	}
}
