package ha

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	nodeA NodeID = "node-a"
	nodeB NodeID = "node-b"
	third NodeID = "witness-1"
)

// bench is two nodes and a witness on one clock and a network that either
// delivers at once or not at all. Its log has the decisions, not the traffic.
type bench struct {
	t       *testing.T
	now     Time
	core    map[NodeID]*Core
	witness *Witness
	boot    map[NodeID]uint64
	disk    map[NodeID]map[GuestID]Record
	cluster map[NodeID]Cluster
	down    map[NodeID]bool
	cut     map[[2]NodeID]bool
	broken  map[NodeID]bool // its store fails
	all     map[NodeID][]Action
	device  func(node NodeID) string // what the fencing device answers; "" is a confirmed off
	log     strings.Builder
	queue   []envelope
}

type envelope struct {
	to NodeID
	ev Event
}

func newBench(t *testing.T, mode Mode) *bench {
	b := &bench{
		t: t, now: Time(100 * time.Second), core: map[NodeID]*Core{}, boot: map[NodeID]uint64{},
		disk: map[NodeID]map[GuestID]Record{}, cluster: map[NodeID]Cluster{}, down: map[NodeID]bool{},
		device: func(NodeID) string { return "" },
		cut:    map[[2]NodeID]bool{}, broken: map[NodeID]bool{}, all: map[NodeID][]Action{},
	}
	for _, id := range []NodeID{nodeA, nodeB, third} {
		b.disk[id] = map[GuestID]Record{}
		b.cluster[id] = Cluster{Gen: 1, By: nodeA, Nodes: [2]NodeID{nodeA, nodeB}, Mode: mode}
		if mode == ModeWitness {
			c := b.cluster[id]
			c.Witness = third
			b.cluster[id] = c
		}
		if mode == ModeBias || mode == ModeFence {
			c := b.cluster[id]
			c.Bias, c.FenceDelay = nodeB, 5*time.Second
			b.cluster[id] = c
		}
		b.start(id)
	}
	return b
}

func (b *bench) start(id NodeID) {
	b.t.Helper()
	b.boot[id]++
	b.down[id] = false
	var records []Record
	for _, r := range b.disk[id] {
		records = append(records, r)
	}
	var err error
	if id == third {
		b.witness, err = NewWitness(WitnessSetup{Self: id, Boot: b.boot[id], Timing: DefaultTiming(), Start: b.now, Records: records})
	} else {
		b.core[id], err = NewCore(Setup{Self: id, Boot: b.boot[id], Timing: DefaultTiming(), Start: b.now, Cluster: b.cluster[id], Records: records})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(&b.log, "%7.2f "+format+"\n", append([]any{float64(b.now)/1e9 - 100}, args...)...)
}

func (b *bench) stop(id NodeID)   { b.say("-- %s is off", id); b.down[id] = true }
func (b *bench) back(id NodeID)   { b.say("-- %s is back", id); b.start(id) }
func (b *bench) part(x, y NodeID) { b.say("-- no link %s %s", x, y); b.link(x, y, true) }
func (b *bench) join(x, y NodeID) { b.say("-- link %s %s", x, y); b.link(x, y, false) }
func (b *bench) link(x, y NodeID, cut bool) {
	b.cut[[2]NodeID{x, y}], b.cut[[2]NodeID{y, x}] = cut, cut
}

// feed gives an event and everything that follows from it at this instant.
func (b *bench) feed(id NodeID, ev Event) {
	switch ev.(type) {
	case Tick, Received, Armed, TakenOver:
	default:
		b.say("%s <- %T%+v", id, ev, ev)
	}
	b.queue = append(b.queue, envelope{id, ev})
	for len(b.queue) > 0 {
		e := b.queue[0]
		b.queue = b.queue[1:]
		if !b.down[e.to] {
			b.execute(e.to, b.step(e.to, e.ev))
		}
	}
}

// step also checks that a clone does exactly the same.
func (b *bench) step(id NodeID, ev Event) []Action {
	if id == third {
		twin := b.witness.Clone()
		got, want := b.witness.Step(b.now, ev), twin.Step(b.now, ev)
		if !reflect.DeepEqual(got, want) || b.witness.Digest(b.now) != twin.Digest(b.now) {
			b.t.Fatalf("a clone of the witness differs: %v, %v", got, want)
		}
		return got
	}
	twin := b.core[id].Clone()
	got, want := b.core[id].Step(b.now, ev), twin.Step(b.now, ev)
	if !reflect.DeepEqual(got, want) || b.core[id].Digest(b.now) != twin.Digest(b.now) {
		b.t.Fatalf("a clone of %s differs: %v, %v", id, got, want)
	}
	return got
}

func (b *bench) execute(id NodeID, list []Action) {
	for _, a := range list {
		switch a := a.(type) {
		case Persist:
			if b.broken[id] {
				b.execute(id, b.step(id, PersistFailed{Err: "no space"}))
				return
			}
			b.disk[id][a.Record.Guest] = a.Record
		case PersistCluster:
			b.cluster[id] = a.Cluster
		case Erase:
			delete(b.disk[id], a.Guest)
		case Send:
			if !b.down[a.To] && !b.cut[[2]NodeID{id, a.To}] {
				b.queue = append(b.queue, envelope{a.To, Received{Message: a.Message}})
			}
		case Renew:
			if a.Arm != 0 {
				b.queue = append(b.queue, envelope{id, Armed{Guest: a.Guest, Arm: a.Arm}})
			}
		case Fence:
			b.say("%s -> Fence %s", id, a.Node)
			trouble := b.device(a.Node)
			if trouble == "" {
				b.stop(a.Node)
			}
			b.queue = append(b.queue, envelope{id, Fenced{ID: a.ID, OK: trouble == "", Err: trouble}})
		case TakeOver:
			b.queue = append(b.queue, envelope{id, TakenOver{Guest: a.Guest, Epoch: a.Epoch}})
		}
		b.all[id] = append(b.all[id], a)
		b.record(id, a)
	}
}

func (b *bench) record(id NodeID, a Action) {
	switch a := a.(type) {
	case Send:
		switch m := a.Message.(type) {
		case Claim:
			b.say("%s -> claim epoch %d of %s", id, m.Epoch, m.Guest)
		case ClaimReply:
			b.say("%s -> claim of epoch %d: ok %v", id, m.Epoch, m.OK)
		}
	case Renew:
		if a.Deadline == Forever && a.Arm == 0 {
			return // said again and again
		}
		if a.Arm != 0 {
			b.say("%s -> Renew %s epoch %d for %.2f s, to be armed", id, a.Guest, a.Epoch, float64(a.Deadline-b.now)/1e9)
		}
	case TakeOver:
		left := fmt.Sprintf("%.2f s", float64(a.Deadline-b.now)/1e9)
		if a.Deadline == Forever {
			left = "ever"
		}
		b.say("%s -> TakeOver %s epoch %d for %s", id, a.Guest, a.Epoch, left)
	case Note:
		b.say("%s -> note %s %s: %s", id, a.Guest, a.Verdict, a.Reason)
	case Alarm:
		state := "over"
		if a.On {
			state = a.Text
		}
		b.say("%s -> alarm %s %s: %s", id, a.Kind, a.Guest, state)
	case Yield, Detached, Attached, Forgotten, Reply, Settled:
		b.say("%s -> %s%+v", id, strings.TrimPrefix(fmt.Sprintf("%T", a), "ha."), a)
	}
}

// run lets time pass in ticks of 100 ms.
func (b *bench) run(d time.Duration) {
	for end := b.now + Time(d); b.now < end; {
		b.now += Time(100 * time.Millisecond)
		for _, id := range []NodeID{nodeA, nodeB, third} {
			b.feed(id, Tick{})
		}
	}
}

// guest makes a protected guest on node A whose replica on B is in sync.
func (b *bench) guest() {
	b.run(200 * time.Millisecond)
	b.feed(nodeA, Own{ID: 1, Record: Record{Guest: "web", Run: true, Level: LevelResume}})
	b.run(200 * time.Millisecond)
	b.inSync(nodeA, nodeB)
	b.run(3 * time.Second)
}

func (b *bench) inSync(owner, standby NodeID) {
	epoch := b.disk[owner]["web"].Epoch
	b.feed(standby, CandidateState{Guest: "web", Ready: true, Epoch: epoch, Sequence: 7})
	b.feed(owner, ReplicaState{Guest: "web", Epoch: epoch, InSync: true})
}

// last returns the newest action of a type on a node.
func last[A Action](b *bench, id NodeID) (found A, ok bool) {
	for _, a := range b.all[id] {
		if x, is := a.(A); is {
			found, ok = x, true
		}
	}
	return found, ok
}
