package replicator

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const verifySize = 3<<20 + 5000

// verified makes a rig in sync whose writes settle within 50 ms.
func verified(t *testing.T) (*rig, *connection) {
	t.Helper()
	// Not to be lost on a machine with other work.
	g := newRig(t, verifySize, func(o *Options) { o.AckDeadline, o.MaxStall = 20*time.Second, time.Minute })
	g.owner.settle = 50 * time.Millisecond
	return g, g.join(t)
}

// join attaches and waits until everything was compared.
func (g *rig) join(t *testing.T) *connection {
	t.Helper()
	c := g.attach()
	eventually(t, "in sync", func() bool { return g.owner.State().Phase == InSync })
	return c
}

// spoil changes a byte of the replica behind everybody's back.
func (g *rig) spoil(disk string, at int64) {
	g.t.Helper()
	p := make([]byte, 1)
	_, err := g.replicas[disk].ReadAt(p, at)
	must(g.t, err)
	p[0] ^= 1
	_, err = g.replicas[disk].WriteAt(p, at)
	must(g.t, err)
}

func quietly(Verified) {}

// An equal replica is found equal, and counts all the while.
func TestVerifyEqual(t *testing.T) {
	g, _ := verified(t)
	var told []int64
	sequence := uint64(0)
	v, err := g.owner.Verify(t.Context(), func(v Verified) {
		told = append(told, v.Compared)
		sequence++
		must(t, g.owner.Mark(t.Context(), sequence))
	})
	must(t, err)
	if len(v.Differs) != 0 || v.Unsettled != 0 || v.Compared != 2*verifySize || v.Total != v.Compared {
		t.Errorf("verified: %+v", v)
	}
	if len(told) != 8 || !slices.IsSorted(told) {
		t.Errorf("progress %v", told)
	}
	if degraded, _ := g.counts(); degraded != 0 {
		t.Errorf("outdated %d times", degraded)
	}
	g.stop()
}

// A replica that differs is outdated first, repaired then, and counts again only
// after that.
func TestVerifyDiffers(t *testing.T) {
	g, c := verified(t)
	const at = 2*ChunkSize + 77
	g.spoil("d1", at)
	var repairedEarly, marked atomic.Bool
	g.mu.Lock()
	g.degrade = func(ctx context.Context) error {
		must(t, (&device{g.owner, 1}).Discard(at, 1, false)) // wakes those who would repair
		time.Sleep(20 * time.Millisecond)
		if s := g.owner.State(); s.Dirty != 2*verifySize {
			t.Errorf("an agent killed now leaves %d bytes to compare", s.Dirty)
		}
		repairedEarly.Store(g.same() == nil)
		marked.Store(g.owner.Mark(ctx, 1) == nil)
		return nil
	}
	g.mu.Unlock()
	v, err := g.owner.Verify(t.Context(), quietly)
	must(t, err)
	if want := []Range{{"d1", 2 * ChunkSize, ChunkSize}}; !slices.Equal(v.Differs, want) || v.Differed() != ChunkSize {
		t.Errorf("differs: %v, want %v", v.Differs, want)
	}
	if err := <-c.lost; !errors.Is(err, ErrDiffers) {
		t.Errorf("the link ended with %v", err)
	}
	if content := g.receiver.Content(); content.Whole || content.Held {
		t.Errorf("the replica that differs would be gone back to: %+v", content)
	}
	degraded, synced := g.counts()
	if degraded != 1 || synced != 1 || repairedEarly.Load() || marked.Load() {
		t.Errorf("outdated %d times, in sync %d; repaired before %t, marked %t", degraded, synced, repairedEarly.Load(), marked.Load())
	}
	if s := g.owner.State(); s.Phase != Detached || !s.Outdated {
		t.Errorf("state %+v", s)
	}
	g.join(t)
	must(t, g.same())
	if content := g.receiver.Content(); !content.Whole {
		t.Error("not whole after the repair")
	}
	if got := g.owner.Differences(); !slices.Equal(got, v.Differs) {
		t.Errorf("the repair sent %v", got)
	}
	v, err = g.owner.Verify(t.Context(), quietly)
	if err != nil || len(v.Differs) != 0 {
		t.Errorf("after the repair: %+v %v", v, err)
	}
	g.stop()
}

// As long as a replica that differs cannot be outdated, nothing is marked and
// nothing repaired.
func TestVerifyDiffersAndCannotBeOutdated(t *testing.T) {
	g, c := verified(t)
	g.spoil("d0", 0)
	refused := make(chan struct{}, 100)
	var allow atomic.Bool
	g.mu.Lock()
	g.degrade = func(context.Context) error {
		if allow.Load() {
			return nil
		}
		refused <- struct{}{}
		return errors.New("nobody answers")
	}
	g.mu.Unlock()
	ended := make(chan error, 1)
	go func() {
		_, err := g.owner.Verify(t.Context(), quietly)
		ended <- err
	}()
	<-refused
	<-refused
	if err := g.owner.Mark(t.Context(), 1); !errors.Is(err, ErrNotInSync) {
		t.Errorf("a marker on a replica that differs: %v", err)
	}
	if g.same() == nil {
		t.Error("repaired while it counted")
	}
	allow.Store(true)
	must(t, <-ended)
	<-c.lost
	g.stop()
}

// What is merely on its way is no difference: guests write all the time, some
// writes are in the disk long before QEMU forwards them.
func TestVerifyWhileTheGuestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := verified(t)
		for _, l := range g.live {
			l.slow = func() { time.Sleep(time.Millisecond) }
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			random := rand.New(rand.NewPCG(1, 2))
			for i := byte(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				at := int64(random.IntN(verifySize))
				g.live[0].set([]byte{i}, at)
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond) // QEMU takes its time
				if _, err := (&device{g.owner, 0}).WriteAt([]byte{i}, at); err != nil {
					t.Error(err)
				}
				g.guests(random, verifySize, 5)
			}
		}()
		for range 3 {
			v, err := g.owner.Verify(t.Context(), quietly)
			if err != nil || len(v.Differs) != 0 {
				t.Errorf("verified: %+v, %v", v, err)
			}
		}
		close(stop)
		<-done
		if degraded, _ := g.counts(); degraded != 0 {
			t.Errorf("outdated %d times", degraded)
		}
		g.stop()
	})
}

// What a discard left in the disk is the compare's business.
func TestVerifyWhileTheGuestDiscards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := verified(t)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := byte(0); ; i++ {
				g.live[1].set([]byte{i}, 5000)
				time.Sleep(g.owner.settle / 2) // QEMU takes its time
				must(t, (&device{g.owner, 1}).Discard(5000, 1, false))
				select {
				case <-stop:
					return
				default:
				}
				eventually(t, "compared", func() bool { return g.owner.State().Phase == InSync })
			}
		}()
		// More often than once there is nothing to verify just now.
		eventually(t, "verified", func() bool {
			v, err := g.owner.Verify(t.Context(), quietly)
			if len(v.Differs) > 0 {
				t.Errorf("differs: %v", v.Differs)
			}
			return err == nil
		})
		close(stop)
		<-done
		g.stop()
	})
}

// A chunk that the guest never leaves alone is not called different, and said
// to be undecided.
func TestVerifyHotChunk(t *testing.T) {
	g, _ := verified(t)
	stop, done := make(chan struct{}), make(chan struct{})
	g.live[0].set([]byte{1}, 9)
	go func() {
		defer close(done)
		for i := byte(2); ; i += 2 { // the disk is odd there, the mirror always behind and even
			g.live[0].set([]byte{i + 1}, 9)
			if _, err := (&device{g.owner, 0}).WriteAt([]byte{i}, 9); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	v, err := g.owner.Verify(t.Context(), quietly)
	close(stop)
	<-done
	if err != nil || len(v.Differs) != 0 || v.Unsettled != ChunkSize {
		t.Errorf("verified: %+v, %v", v, err)
	}
	g.stop()
}

func TestVerifyRefused(t *testing.T) {
	g := newRig(t, verifySize, nil)
	if _, err := g.owner.Verify(t.Context(), quietly); !errors.Is(err, ErrNotInSync) {
		t.Errorf("without a link: %v", err)
	}
	c := g.join(t)
	_, err := g.owner.Verify(t.Context(), func(Verified) {
		if _, err := g.owner.Verify(t.Context(), quietly); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
	})
	must(t, err)
	cut := false
	_, err = g.owner.Verify(t.Context(), func(Verified) {
		if !cut {
			cut = true
			c.cut()
		}
	})
	if !errors.Is(err, ErrNotInSync) {
		t.Errorf("after the link was cut: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.join(t)
	_, err = g.owner.Verify(ctx, func(Verified) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	g.stop()
}

func TestRemaining(t *testing.T) {
	began := time.Unix(1000, 0)
	for _, test := range []struct {
		state State
		want  time.Duration
	}{
		{State{Phase: Resync, Compared: 25, Total: 100, Since: began}, 30 * time.Second},
		{State{Phase: Resync, Compared: 0, Total: 100, Since: began}, 0},
		{State{Phase: Resync, Compared: 100, Total: 100, Since: began}, 0},
		{State{Phase: InSync, Compared: 25, Total: 100, Since: began}, 0},
	} {
		if got := test.state.Remaining(began.Add(10 * time.Second)); got != test.want {
			t.Errorf("%+v: %v, want %v", test.state, got, test.want)
		}
	}
}
