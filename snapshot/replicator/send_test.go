package replicator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/node/wire"
)

// gated is an owner's stream whose Sends of writes wait at a gate. It notes the ids
// that passed.
type gated struct {
	Stream
	gate   chan struct{}
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	ids     []uint64
	sending int // writes
}

func (g *gated) count(change int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sending += change
}

func newGated(stream Stream) *gated {
	return &gated{Stream: stream, gate: make(chan struct{}), closed: make(chan struct{})}
}

func (g *gated) Send(kind wire.Kind, body any) error {
	if w, ok := body.(*Write); ok {
		g.count(1)
		defer g.count(-1)
		select {
		case <-g.gate:
		case <-g.closed:
			time.Sleep(3 * time.Second) // of the test's clock: it still has the data
			return errors.New("closed")
		}
		g.mu.Lock()
		g.ids = append(g.ids, w.ID)
		g.mu.Unlock()
	}
	return g.Stream.Send(kind, body)
}

func (g *gated) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Stream.Close()
}

// attachGated is attach with a gate in front of the owner's writes.
func (g *rig) attachGated() (*gated, *connection) {
	c := &connection{lost: make(chan error, 1), parted: make(chan error, 1)}
	owner, peer := pipe()
	c.owner, c.peer = owner, &muted{Conn: peer}
	stream, receiver := newGated(owner), g.receiver
	g.parting.Go(func() { c.parted <- receiver.Serve(context.Background(), c.peer) })
	go func() { c.lost <- g.owner.Attach(context.Background(), stream, Peer{}) }()
	return stream, c
}

// start begins a write as QEMU does, and returns where its end is told.
func (g *rig) start(p []byte, off int64) chan error {
	g.live[0].set(p, off)
	done := make(chan error, 1)
	go (&device{g.owner, 0}).StartWrite(p, off, func(err error) { done <- err })
	synctest.Wait()
	return done
}

// equalDisks makes a rig whose replicas have what the disks have, so that a link
// sends nothing but what the guest writes.
func equalDisks(t *testing.T) *rig {
	g := newRig(t, 1<<20, nil)
	g.attach()
	settled(g, InSync)
	return g
}

// While somebody sends in the sender's place, what others have is queued, and leaves
// in order afterwards: none is left behind.
func TestOrderOfTheStreamWhoeverSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := equalDisks(t)
		stream, _ := g.attachGated()
		settled(g, InSync)
		var ends []chan error
		for i := range 5 {
			ends = append(ends, g.start([]byte{byte(i)}, 7)) // the same byte: order matters
		}
		if s := g.owner.State(); s.Waiting != 5 {
			t.Errorf("%d writes wait, want 5", s.Waiting)
		}
		must(t, g.owner.Mark(t.Context(), 9))
		close(stream.gate)
		for _, end := range ends {
			must(t, <-end)
		}
		must(t, g.receiver.WaitMark(t.Context(), 9))
		must(t, g.same())
		for i, id := range stream.ids {
			if id != stream.ids[0]+uint64(i) {
				t.Errorf("writes left in the order %v", stream.ids)
			}
		}
		if s := g.owner.State(); len(stream.ids) != 5 || s.Waiting != 0 {
			t.Errorf("%d writes were sent, %d wait", len(stream.ids), s.Waiting)
		}
		g.stop()
	})
}

// A write that is being sent in the sender's place when the link is lost waits as any
// other, and so does what was queued behind it; nobody's data is used afterwards.
func TestLinkLostWhileAWriteIsBeingSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := equalDisks(t)
		stream, c := g.attachGated()
		settled(g, InSync)
		first, second := g.start([]byte("first"), 0), g.start([]byte("second"), 9000)
		must(t, <-first)
		must(t, <-second)
		if stream.sending != 0 {
			t.Error("a write was answered while its data was being sent")
		}
		if err := <-c.lost; !errors.Is(err, ErrSilent) {
			t.Errorf("link lost by %v", err)
		}
		if degraded, _ := g.counts(); degraded != 1 {
			t.Errorf("Degrade called %d times", degraded)
		}
		g.recovers(t)
	})
}

// Whoever acknowledges, the owner need not send anything more to hear of what was
// applied, and hears of each frame once.
func TestEveryFrameIsAcknowledgedOnce(t *testing.T) {
	r, _ := newReceiver(t)
	owner, peer := pipe()
	owner.SetTimeouts(5*time.Second, 0)
	served := make(chan error, 1)
	go func() { served <- r.Serve(t.Context(), peer) }()
	must(t, owner.Send(KindHello, hello()))
	for id := uint64(1); id <= 200; id++ {
		must(t, owner.Send(KindWrite, &Write{ID: id, Offset: 4096 * int64(id%8), Data: []byte{byte(id)}}))
		kind, body, err := owner.Receive()
		must(t, err)
		var ack Ack
		if must(t, decode(body, &ack)); kind != KindAck || ack.ID != id {
			t.Fatalf("kind %d, id %d after frame %d", kind, ack.ID, id)
		}
	}
	owner.Close()
	<-served
}
