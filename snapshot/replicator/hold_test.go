package replicator

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/durable"
	"vmctl/snapshot/undo"
)

// holder is a peer's side with one disk and an identity.
type holder struct {
	*Receiver
	disk     *undo.Disk
	identity *Identity
	fail     func(durable.Change) error // nil: nothing fails

	mu    sync.Mutex
	noted []string
}

func newHolder(t *testing.T, limit int64) *holder {
	t.Helper()
	h, dir := &holder{}, t.TempDir()
	files := durable.Files{Watch: func(c durable.Change) error {
		if h.fail != nil {
			return h.fail(c)
		}
		return nil
	}}
	var err error
	h.disk, err = undo.OpenWith(files, filepath.Join(dir, "d"), replicaSize)
	must(t, err)
	t.Cleanup(func() { h.disk.Close() })
	h.identity, err = OpenIdentity(files, filepath.Join(dir, "identity"), "1", []string{filepath.Join(dir, "d")})
	must(t, err)
	h.Receiver = NewReceiver(ReceiverOptions{
		Guest: "g", Epoch: 3, Disks: map[string]*undo.Disk{"d": h.disk}, Identity: h.identity, HoldLimit: limit,
		Noted: func(kind, text string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.noted = append(h.noted, kind+": "+text)
		},
	}, quiet())
	return h
}

func holds() frame {
	m := hello()
	m.Holds = true
	return frame{KindHello, m}
}

func writeOf(id uint64, off int64, b byte) frame {
	return frame{KindWrite, &Write{ID: id, Offset: off, Data: bytes.Repeat([]byte{b}, 4096)}}
}

// speak sends frames until all are answered, a Whole included, and leaves.
func (h *holder) speak(t *testing.T, frames ...frame) {
	t.Helper()
	owner, peer := pipe()
	served := make(chan error, 1)
	go func() { served <- h.Serve(context.Background(), peer) }()
	go func() {
		for _, f := range frames {
			if owner.Send(f.kind, f.body) != nil {
				return
			}
		}
	}()
	left := map[uint64]bool{}
	whole := false
	for _, f := range frames {
		switch m := f.body.(type) {
		case *Write:
			left[m.ID] = true
		case *Zero:
			left[m.ID] = true
		case *Whole:
			whole = true
		}
	}
	for len(left) > 0 || whole {
		kind, body, err := owner.Receive()
		must(t, err)
		switch kind {
		case KindAck:
			var ack Ack
			must(t, decode(body, &ack))
			for id := range left {
				if id <= ack.ID {
					delete(left, id)
				}
			}
		case KindWhole:
			whole = false
		default:
			t.Fatalf("the replica says %q", body)
		}
	}
	must(t, owner.Close())
	<-served
}

func (h *holder) first(t *testing.T) byte {
	t.Helper()
	p := make([]byte, 1)
	_, err := h.disk.ReadAt(p, 0)
	must(t, err)
	return p[0]
}

// Whatever comes after a Hold, a takeover finds what was whole before it, and what
// was written last once it is whole again.
func TestHoldOfAReplica(t *testing.T) {
	const old, mixed = 1, 9
	whole := []frame{holds(), writeOf(1, 0, old), {KindWhole, &Whole{ID: 1}}}
	hold, doubt := frame{KindHold, &Hold{Keep: true}}, frame{KindHold, &Hold{}}
	for name, c := range map[string]struct {
		before [][]frame
		last   []frame
		want   byte
	}{
		"in a resync":              {[][]frame{whole}, []frame{holds(), hold, writeOf(1, 0, mixed)}, old},
		"in the next one":          {[][]frame{whole, {holds(), hold, writeOf(1, 0, 5)}}, []frame{holds(), hold, writeOf(1, 0, mixed)}, old},
		"no matter what is doubt":  {[][]frame{whole, {holds(), hold, writeOf(1, 0, 5)}}, []frame{holds(), doubt, writeOf(1, 0, mixed)}, old},
		"after it":                 {[][]frame{whole, {holds(), hold, writeOf(1, 0, 5)}}, []frame{holds(), writeOf(1, 0, mixed), {KindWhole, &Whole{ID: 7}}}, mixed},
		"without one":              {[][]frame{whole}, []frame{holds(), writeOf(1, 0, mixed)}, mixed},
		"never whole":              {[][]frame{{holds(), writeOf(1, 0, old)}}, []frame{holds(), hold, writeOf(1, 0, mixed)}, mixed},
		"in doubt before":          {[][]frame{whole, {holds(), doubt, writeOf(1, 0, 5)}}, []frame{holds(), hold, writeOf(1, 0, mixed)}, mixed},
		"owner that does not hold": {[][]frame{whole, {holds(), hold, writeOf(1, 0, 5)}}, []frame{{KindHello, hello()}, writeOf(1, 0, mixed)}, mixed},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHolder(t, 0)
			for _, frames := range c.before {
				h.speak(t, frames...)
			}
			h.speak(t, c.last...)
			h.Stop()
			of, err := h.Restore()
			must(t, err)
			if got := h.first(t); got != c.want {
				t.Errorf("the disk has %d, want %d", got, c.want)
			}
			if back := c.want == old; back == of.IsZero() || back && time.Since(of) > time.Minute {
				t.Errorf("set back to what it was at %v", of)
			}
			if content := h.Content(); content.Held || content.Bytes != 0 {
				t.Errorf("after it: %+v", content)
			}
		})
	}
}

// A hold that takes too much, or has no room, is given up: the resync goes on.
func TestHoldIsGivenUp(t *testing.T) {
	full := errors.New("no space left on device")
	for name, c := range map[string]struct {
		limit int64
		fail  func(durable.Change) error
	}{
		"limit": {limit: 20 << 10},
		"log": {limit: 1 << 30, fail: func(c durable.Change) error {
			if c.Kind == durable.Write && strings.HasPrefix(filepath.Base(c.Path), "hold.log") && c.Offset > 4096 {
				return full
			}
			return nil
		}},
		"image": {limit: 1 << 30, fail: func() func(durable.Change) error {
			once := false
			return func(c durable.Change) error {
				if c.Kind == durable.Write && filepath.Base(c.Path) == "d" && c.Data[0] == 3 && !once {
					once = true
					return full
				}
				return nil
			}
		}()},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHolder(t, c.limit)
			var fill []frame
			for i := range uint64(16) {
				fill = append(fill, writeOf(i+1, int64(i)*4096, 1))
			}
			h.speak(t, append(append([]frame{holds()}, fill...), frame{KindWhole, &Whole{ID: 1}})...)
			h.fail = c.fail
			frames := []frame{holds(), {KindHold, &Hold{Keep: true}}}
			for i := range uint64(16) {
				frames = append(frames, writeOf(i+1, int64(i)*4096, 2+byte(i)%2))
			}
			h.speak(t, frames...)
			if content := h.Content(); content.Held || content.Whole || content.Bytes != 0 {
				t.Errorf("content: %+v", content)
			}
			if len(h.noted) != 1 || !strings.HasPrefix(h.noted[0], "undo-folded: ") {
				t.Errorf("noted: %q", h.noted)
			}
			image := make([]byte, 16*4096)
			_, err := h.disk.ReadAt(image, 0)
			must(t, err)
			for i := range 16 {
				if image[i*4096] != 2+byte(i)%2 {
					t.Errorf("write %d is not there", i)
				}
			}
		})
	}
}

// Writes that wait for the log land in their order.
func TestBacklogKeepsTheOrder(t *testing.T) {
	h := newHolder(t, 0)
	h.speak(t, holds(), writeOf(1, 0, 1), frame{KindWhole, &Whole{ID: 1}})
	h.fail = func(c durable.Change) error {
		if c.Kind == durable.Sync {
			time.Sleep(2 * time.Millisecond) // more come meanwhile
		}
		return nil
	}
	frames, want := []frame{holds(), {KindHold, &Hold{Keep: true}}}, make([]byte, 8)
	for id := uint64(1); id < 200; id++ {
		block := id * 7 % 8
		want[block] = byte(id)
		f := writeOf(id, int64(block)*4096, byte(id))
		if id%9 == 0 {
			want[block] = 0
			f = frame{KindZero, &Zero{ID: id, Offset: int64(block) * 4096, Length: 4096}}
		}
		frames = append(frames, f)
	}
	h.speak(t, frames...)
	for block, b := range want {
		p := make([]byte, 1)
		_, err := h.disk.ReadAt(p, int64(block)*4096)
		must(t, err)
		if p[0] != b {
			t.Errorf("block %d has %d, written last was %d", block, p[0], b)
		}
	}
	h.Stop()
	_, err := h.Restore()
	must(t, err)
	if h.first(t) != 1 {
		t.Error("not what was held")
	}
}

// The replica counts only after the peer keeps nothing older any more.
func TestWholeBeforeInSync(t *testing.T) {
	g := newRig(t, 1<<20, nil)
	held := make(chan bool, 10)
	g.inSync = func(context.Context) error {
		held <- g.receiver.isHolding() || !g.receiver.Content().Whole
		return nil
	}
	wait := func(what string) {
		t.Helper()
		select {
		case bad := <-held:
			if bad {
				t.Errorf("%s: InSync is called, and the peer may go back", what)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: not in sync", what)
		}
	}
	c := g.attach()
	wait("the first copy")
	c.cut()
	must(t, g.write(0, []byte("written while nobody listened"), 70000)) // degrades first
	before := make([]byte, 32)
	_, err := g.replicas["d0"].ReadAt(before, 70000)
	must(t, err)
	block := make(chan struct{})
	g.live[0].slow = func() { <-block } // the resync gets nowhere
	c = g.attach()
	for range 1000 {
		if g.receiver.isHolding() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if !g.receiver.isHolding() {
		t.Error("nothing is held in a resync")
	}
	must(t, g.write(1, []byte("in the resync"), 0))
	close(block)
	wait("the resync")
	must(t, g.same())
	if g.replicas["d0"].Held() {
		t.Error("held after it")
	}
	c.cut()
	g.stop()
}

// A log that takes long to become durable is not taken for a peer that is gone.
func TestSlowLogIsNoSilence(t *testing.T) {
	h := newHolder(t, 0)
	h.speak(t, holds(), writeOf(1, 0, 1), frame{KindWhole, &Whole{ID: 1}})
	h.fail = func(c durable.Change) error {
		if c.Kind == durable.Sync && strings.HasPrefix(filepath.Base(c.Path), "hold.log") {
			time.Sleep(5 * repeatEvery)
		}
		return nil
	}
	owner, peer := pipe()
	served := make(chan error, 1)
	go func() { served <- h.Serve(context.Background(), peer) }()
	go func() {
		for _, f := range []frame{holds(), {KindHold, &Hold{Keep: true}}, writeOf(1, 0, 9)} {
			_ = owner.Send(f.kind, f.body)
		}
	}()
	repeated := 0
	for {
		kind, body, err := owner.Receive()
		must(t, err)
		var ack Ack
		if must(t, decode(body, &ack)); kind != KindAck {
			t.Fatalf("the replica says %q", body)
		}
		if ack.ID == 1 {
			break
		}
		repeated++
	}
	if repeated < 2 {
		t.Errorf("told %d times that it lives", repeated)
	}
	must(t, owner.Close())
	<-served
}

// What the owner asks a replica to keep: nothing while it counts, for a takeover by
// itself would go back to that; nothing either when it may be of no moment.
func TestOwnerAsksToKeepOnlyWhatDoesNotCount(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*Replicator)
		keep   bool
	}{
		"the replica counts":                    {func(*Replicator) {}, false},
		"the replica is outdated":               {(*Replicator).NoteOutdated, true},
		"outdated, and writes went past a disk": {func(r *Replicator) { r.NoteOutdated(); _ = r.Recheck() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, 4*ChunkSize, nil)
			first := g.attach()
			eventually(t, "in sync", func() bool { return g.owner.State().Phase == InSync })
			must(t, first.owner.Close())
			<-first.lost
			c.before(g.owner)
			must(t, (&device{g.owner, 0}).Discard(0, ChunkSize, false)) // something to compare
			asked := make(chan Hold, 1)
			second := g.attachTo(func(peer *wire.Conn) {
				for {
					kind, body, err := peer.Receive()
					if err != nil {
						return
					}
					if kind == KindHold {
						var m Hold
						if err := decode(body, &m); err != nil {
							t.Error(err)
						}
						asked <- m
						return
					}
				}
			})
			if m := <-asked; m.Keep != c.keep {
				t.Errorf("asked to keep what it has: %t, want %t", m.Keep, c.keep)
			}
			must(t, second.owner.Close())
			<-second.lost
			g.stop()
		})
	}
}
