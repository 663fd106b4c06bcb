package lease

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/ha"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// end is one node's links with what they told it.
type end struct {
	*Links
	mu   sync.Mutex
	got  []ha.Message
	ups  []bool
	dial func(context.Context, ha.NodeID) (*wire.Conn, error)
}

func newEnd(ctx context.Context) *end {
	e := &end{}
	e.Links = New(ctx, func(ctx context.Context, to ha.NodeID) (*wire.Conn, error) { return e.dial(ctx, to) },
		func(m ha.Message) { e.mu.Lock(); e.got = append(e.got, m); e.mu.Unlock() },
		func(_ ha.NodeID, up bool) { e.mu.Lock(); e.ups = append(e.ups, up); e.mu.Unlock() },
		slog.New(slog.DiscardHandler))
	return e
}

func (e *end) heard() []ha.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]ha.Message(nil), e.got...)
}

func (e *end) status() []bool { e.mu.Lock(); defer e.mu.Unlock(); return append([]bool(nil), e.ups...) }

// bubble runs test with a context; everything must have ended after it.
func bubble(t *testing.T, test func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		test(t, ctx)
	})
}

// connect makes a's dial lead to b, as long as it is not cut; it counts.
func connect(a, b *end, self ha.NodeID) (dials *int) {
	dials = new(int)
	a.dial = func(ctx context.Context, _ ha.NodeID) (*wire.Conn, error) {
		*dials++
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			b.Serve(ctx, wire.NewConn(far, Options()), wire.Hello{Node: string(self)})
		}()
		return wire.NewConn(near, Options()), nil
	}
	return dials
}

var everyMessage = []ha.Message{
	ha.Heartbeat{From: "a", Boot: 1, Seq: 2, Cluster: ha.Cluster{Gen: 3, By: "a", Nodes: [2]ha.NodeID{"a", "b"}, Mode: ha.ModeWitness, Witness: "w"},
		Renewals: []ha.Record{{Guest: "g", Epoch: 4, Rev: 5, Owner: "a", Standby: "b", Run: true, Level: ha.LevelResume}}},
	ha.Ask{From: "a", Boot: 1, Seq: 3, Guest: "g", Epoch: 5, Force: true},
	ha.Claim{From: "a", Boot: 1, Seq: 4, ID: 5, To: 6, Guest: "g", Prior: 4, Epoch: 5},
	ha.Ack{From: "a", FromBoot: 1, Boot: 2, Seq: 3, Grants: []ha.Grant{{Guest: "g", Epoch: 4, OK: true}}},
	ha.AskReply{From: "a", Guest: "g", Epoch: 5, Would: true, Verdict: ha.Granted, Reason: "r"},
	ha.ClaimReply{From: "a", Guest: "g", Epoch: 5, OK: true, Record: ha.Record{Guest: "g", Owner: "a"}},
}

func from(m ha.Message, node ha.NodeID) ha.Message {
	v := reflect.New(reflect.TypeOf(m)).Elem()
	v.Set(reflect.ValueOf(m))
	v.FieldByName("From").Set(reflect.ValueOf(node))
	return v.Interface().(ha.Message)
}

func TestBothWays(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := newEnd(ctx), newEnd(ctx)
		connect(a, b, "a")
		connect(b, a, "b")
		var wantA, wantB []ha.Message
		for _, m := range everyMessage {
			if isReply(m) { // goes back on the connection of who asked
				b.Send("a", from(m, "b"))
				wantA = append(wantA, from(m, "b"))
			} else {
				a.Send("b", m)
				wantB = append(wantB, m)
			}
			synctest.Wait()
		}
		b.Send("a", from(everyMessage[0], "b"))
		synctest.Wait()
		if got := b.heard(); !reflect.DeepEqual(got, wantB) {
			t.Errorf("b got %+v", got)
		}
		if got := a.heard(); !reflect.DeepEqual(got, append(wantA, from(everyMessage[0], "b"))) {
			t.Errorf("a got %+v", got)
		}
		a.Send("c", from(everyMessage[3], "a"))
		synctest.Wait()
		if len(a.outgoing) != 1 {
			t.Error("a reply made a link to a node that never asked")
		}
	})
}

func TestEveryMessageHasAForm(t *testing.T) {
	kinds := map[wire.Kind]bool{}
	for _, m := range everyMessage {
		kind, err := kindOf(m)
		if err != nil || kinds[kind] {
			t.Errorf("%T: kind %d, %v", m, kind, err)
		}
		kinds[kind] = true
	}
	if _, err := kindOf(nil); err == nil {
		t.Error("nothing has a form")
	}
}

func TestSpoofedSenderEndsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := newEnd(ctx), newEnd(ctx)
		dials := connect(a, b, "a")
		a.Send("b", everyMessage[0])
		synctest.Wait()
		a.Send("b", from(everyMessage[0], "b")) // as if b had said it itself
		a.Send("b", everyMessage[1])
		synctest.Wait()
		if got := b.heard(); len(got) != 1 {
			t.Errorf("b took %+v", got)
		}
		if got := a.status(); !reflect.DeepEqual(got, []bool{true, false}) {
			t.Errorf("the connection went %v", got)
		}
		time.Sleep(2 * redialPause)
		synctest.Wait()
		if *dials != 2 {
			t.Errorf("%d connections", *dials)
		}
		b.Send("a", from(everyMessage[3], "c")) // an answer in another's name
		synctest.Wait()
		if got := a.heard(); len(got) != 0 || a.status()[len(a.status())-1] {
			t.Errorf("a took %+v", got)
		}
	})
}

// hole is a peer that takes everything and says nothing, or does not even read.
func hole(ctx context.Context, reads bool) func(context.Context, ha.NodeID) (*wire.Conn, error) {
	return func(context.Context, ha.NodeID) (*wire.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			buffer := make([]byte, 4096)
			for reads {
				if _, err := far.Read(buffer); err != nil {
					return
				}
			}
			<-ctx.Done()
		}()
		return wire.NewConn(near, Options()), nil
	}
}

func TestSilentPeerIsRedialled(t *testing.T) {
	for _, reads := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			a := newEnd(ctx)
			dial, dials := hole(ctx, reads), 0
			a.dial = func(ctx context.Context, to ha.NodeID) (*wire.Conn, error) { dials++; return dial(ctx, to) }
			for range 50 {
				a.Send("b", everyMessage[0])
				time.Sleep(200 * time.Millisecond)
			}
			synctest.Wait()
			if dials < 8 || dials > 11 {
				t.Errorf("reads %t: %d connections in 10 s, each silent for %s", reads, dials, silence)
			}
		})
	}
}

func TestSendNeverWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a := newEnd(ctx)
		dead := map[ha.NodeID]func(context.Context, ha.NodeID) (*wire.Conn, error){
			"dials": func(ctx context.Context, _ ha.NodeID) (*wire.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			"fails": func(context.Context, ha.NodeID) (*wire.Conn, error) { return nil, errors.New("no route") },
			"stuck": hole(ctx, false),
		}
		a.dial = func(ctx context.Context, to ha.NodeID) (*wire.Conn, error) { return dead[to](ctx, to) }
		began := time.Now()
		for range 10 * linkQueue {
			for to := range dead {
				a.Send(to, everyMessage[0])
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("sending took %s", time.Since(began))
		}
		for to, out := range a.outgoing {
			if len(out.queue) > linkQueue {
				t.Errorf("%s has %d messages waiting", to, len(out.queue))
			}
		}
	})
}

func TestLateMessagesAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := newEnd(ctx), newEnd(ctx)
		connect(a, b, "a")
		through, slow := a.dial, 1400*time.Millisecond
		var up atomic.Bool
		a.dial = func(ctx context.Context, to ha.NodeID) (*wire.Conn, error) {
			select {
			case <-time.After(slow):
			case <-ctx.Done():
			}
			if !up.Load() {
				return nil, errors.New("no route")
			}
			return through(ctx, to)
		}
		sent := map[uint64]time.Time{}
		for seq := uint64(1); seq <= 50; seq++ {
			sent[seq] = time.Now()
			a.Send("b", ha.Heartbeat{From: "a", Seq: seq})
			before := len(b.heard())
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			for _, m := range b.heard()[before:] {
				if age := time.Since(sent[m.(ha.Heartbeat).Seq]); age > stale+200*time.Millisecond {
					t.Errorf("heartbeat %d came %s late", m.(ha.Heartbeat).Seq, age)
				}
			}
			up.Store(seq > 15)
		}
		got := b.heard()
		if len(got) < 15 || got[len(got)-1].(ha.Heartbeat).Seq != 50 {
			t.Errorf("%d heartbeats came through", len(got))
		}
	})
}

func TestUnusedLinkIsLetGo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := newEnd(ctx), newEnd(ctx)
		dials := connect(a, b, "a")
		a.Send("b", everyMessage[0])
		time.Sleep(2 * linkIdle)
		synctest.Wait()
		before := *dials
		time.Sleep(linkIdle)
		synctest.Wait()
		if *dials != before {
			t.Error("a link that nobody uses is still made")
		}
		a.Send("b", everyMessage[1])
		synctest.Wait()
		if got := b.heard(); len(got) != 2 {
			t.Errorf("after it was used again: %d messages", len(got))
		}
	})
}

func TestEverythingEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		a, b := newEnd(ctx), newEnd(ctx)
		connect(a, b, "a")
		waited := make(chan struct{})
		go func() { a.Wait(); close(waited) }()
		a.Send("b", everyMessage[0])
		synctest.Wait()
		select {
		case <-waited:
			t.Fatal("Wait did not wait")
		default:
		}
		cancel()
		<-waited
		a.Send("c", everyMessage[0])
		synctest.Wait()
		if len(a.outgoing)+len(a.incoming)+len(b.outgoing)+len(b.incoming) != 0 {
			t.Error("links are left")
		}
	})
}

// A witness only answers.
func TestLinksThatOnlyAnswer(t *testing.T) {
	l := New(t.Context(), nil, func(ha.Message) {}, nil, slog.New(slog.DiscardHandler))
	l.Send("a", everyMessage[0])
	l.Send("a", everyMessage[3])
}

func FuzzDecode(f *testing.F) {
	for _, m := range everyMessage {
		kind, _ := kindOf(m)
		f.Add(uint8(kind), encoded(f, m))
	}
	f.Add(uint8(15), []byte{0xc0})
	f.Add(uint8(kindHeartbeat), []byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		in := NewDecoder("a")
		message, err := in.Message(wire.Kind(kind), body)
		switch {
		case err == nil && message.Sender() != "a":
			t.Errorf("taken from %q", message.Sender())
		case err != nil && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, peer.ErrStranger):
			t.Errorf("an error of no class: %v", err)
		}
	})
}

// encoded is a message's body as it travels.
func encoded(f *testing.F, m ha.Message) []byte {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _ = wire.NewConn(near, Options()).Send(20, m) }()
	_, body, err := wire.NewConn(far, Options()).Receive()
	if err != nil {
		f.Fatal(err)
	}
	return append([]byte(nil), body...)
}

// The link to a witness outlives a calm node's pause between two heartbeats, a
// tick late, and is found dead while its lease leaves time for a new one.
func TestWitnessSilence(t *testing.T) {
	timing := ha.DefaultTiming()
	quiet := timing.Lease/3 + 2*timing.Tick
	again := WitnessOptions().ReadTimeout + redialPause*3/2
	if WitnessOptions().ReadTimeout < quiet+timing.Lease/10 || again > timing.Lease*3/4 {
		t.Errorf("a silence of %s: heartbeats come every %s, and a new link is made after %s of a lease of %s",
			WitnessOptions().ReadTimeout, quiet, again, timing.Lease)
	}
}
