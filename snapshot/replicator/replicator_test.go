package replicator

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/snapshot/nbd"
)

// settled waits until everything waits for time or for the test.
func settled(g *rig, phase Phase) State {
	g.t.Helper()
	synctest.Wait()
	s := g.owner.State()
	if s.Phase != phase {
		g.t.Fatalf("state %+v, want %s", s, phase)
	}
	return s
}

func TestFirstCopyThenForwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []State
		g := newRig(t, 3<<20+700, func(o *Options) { o.Changed = func(s State) { told = append(told, s) } })
		if err := g.owner.Mark(t.Context(), 1); !errors.Is(err, ErrNotInSync) {
			t.Errorf("mark without a link: %v", err)
		}
		c := g.attach()
		s := settled(g, InSync)
		if s.Compared != s.Total || s.Outdated || s.Sent == 0 || s.Sent > s.Total*3/4+4*ChunkSize {
			t.Errorf("after the first copy: %+v", s)
		}
		must(t, g.same())
		if degraded, synced := g.counts(); degraded != 0 || synced != 1 {
			t.Errorf("Degrade called %d times, InSync %d", degraded, synced)
		}
		must(t, g.write(0, bytes.Repeat([]byte("w"), 2<<20+5), 77)) // more than one frame
		g.live[1].set(make([]byte, 999), 5)
		must(t, (&device{g.owner, 1}).Discard(5, 999, true))
		must(t, g.same())
		c.cut()
		settled(g, Detached)
		g.stop()
		if last := told[len(told)-1]; last.Phase != Detached {
			t.Errorf("last state told: %+v", last)
		}
	})
}

func TestSilentPeerStallsTheGuestNoLongerThanDegradeTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		began := time.Now()
		g.degrade = func(context.Context) error {
			if time.Since(began) < 3*time.Second {
				return errors.New("witness is away")
			}
			return nil
		}
		silent := func() time.Duration { // a link that was in sync goes silent
			c := g.attach()
			settled(g, InSync)
			c.peer.silent.Store(true)
			began = time.Now()
			must(t, g.write(0, []byte("hello"), 100))
			took := time.Since(began)
			if err := <-c.lost; !errors.Is(err, ErrSilent) {
				t.Errorf("link lost by %v", err)
			}
			<-c.parted
			return took
		}
		if took := silent(); took < 3*time.Second || took > 4100*time.Millisecond {
			t.Errorf("the write was acknowledged after %v; Degrade succeeds from 3 s on", took)
		}
		if s := settled(g, Detached); !s.Outdated {
			t.Errorf("state %+v", s)
		}
		began = time.Now()
		must(t, g.write(0, []byte("again"), 100))
		if took := time.Since(began); took != 0 {
			t.Errorf("a degraded write took %v", took)
		}
		g.degrade = nil
		if took := silent(); took < time.Second || took > 1300*time.Millisecond {
			t.Errorf("the guest stood still for %v with a deadline of 1 s", took)
		}
		g.recovers(t)
	})
}

func TestWriteWaitsForANewLinkRatherThanDegrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		g.attach().cut()
		done := make(chan error, 1)
		go func() { done <- g.write(1, []byte("hello"), 4000) }()
		time.Sleep(500 * time.Millisecond)
		settled(g, Detached)
		g.attach()
		must(t, <-done)
		settled(g, InSync)
		must(t, g.same())
		if degraded, _ := g.counts(); degraded != 0 {
			t.Errorf("Degrade called %d times", degraded)
		}
		g.stop()
	})
}

func TestIdleGuestNeedsNoDegrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		c := g.attach()
		settled(g, InSync)
		c.cut()
		time.Sleep(time.Hour)
		if degraded, _ := g.counts(); degraded != 0 || g.owner.State().Outdated {
			t.Errorf("Degrade called %d times though the replica has every write", degraded)
		}
		g.stop()
	})
}

// While InSync runs the replica may count already: a link lost then needs a
// Degrade, and that one after InSync has returned.
func TestLinkLostDuringInSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, func(o *Options) { o.Outdated = true })
		var order []string
		g.inSync = func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(2 * time.Second) // the witness is slow to let go
			order = append(order, "insync")
			return ctx.Err()
		}
		g.degrade = func(context.Context) error {
			order = append(order, "degrade")
			return nil
		}
		began := time.Now()
		must(t, g.write(0, []byte("a"), 0)) // outdated from the start: at once
		if took := time.Since(began); took != 0 {
			t.Errorf("a write to a guest without replica took %v", took)
		}
		c := g.attach()
		if s := settled(g, Resync); s.Outdated {
			t.Errorf("outdated while InSync runs: %+v", s)
		}
		c.cut()
		must(t, g.write(0, []byte("b"), 0))
		if len(order) != 2 || order[0] != "insync" || order[1] != "degrade" {
			t.Errorf("order of calls: %v", order)
		}
		g.stop()
	})
}

func TestMarkersCutAllDisksAtOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		c := g.attach()
		settled(g, InSync)
		var copies [][]byte
		for mark := range uint64(3) {
			must(t, g.write(0, bytes.Repeat([]byte{byte(mark) + 1}, 5000), int64(mark)*100))
			must(t, g.write(1, bytes.Repeat([]byte{byte(mark) + 9}, 5000), int64(mark)*200))
			must(t, g.owner.Mark(t.Context(), mark))
			must(t, g.receiver.WaitMark(t.Context(), mark))
			copies = append(copies, bytes.Clone(g.live[0].bytes), bytes.Clone(g.live[1].bytes))
		}
		must(t, g.write(0, bytes.Repeat([]byte{99}, 9000), 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.receiver.WaitMark(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait for a marker that does not come: %v", err)
		}
		must(t, g.receiver.Sync())
		g.receiver.Stop()
		if err := g.receiver.WaitMark(t.Context(), 3); !errors.Is(err, ErrStopped) {
			t.Errorf("wait after Stop: %v", err)
		}
		<-c.lost
		for mark := 2; mark >= 0; mark-- {
			for i, name := range names {
				must(t, g.replicas[name].Rollback(uint64(mark)))
				got := make([]byte, len(copies[0]))
				_, err := g.replicas[name].ReadAt(got, 0)
				must(t, err)
				if !bytes.Equal(got, copies[2*mark+i]) {
					t.Errorf("%s at marker %d is not the copy", name, mark)
				}
			}
		}
		g.stop()
	})
}

func TestTrimIsComparedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 4<<20, nil)
		g.attach()
		settled(g, InSync)
		hold := make(chan struct{})
		g.live[0].slow = func() { <-hold }
		g.live[0].set(make([]byte, 10000), 1<<20) // what QEMU's drivers made of it
		must(t, (&device{g.owner, 0}).Discard(1<<20-500, 12000, false))
		settled(g, Resync)
		if err := g.owner.Mark(t.Context(), 1); !errors.Is(err, ErrNotInSync) {
			t.Errorf("mark before the trimmed range was compared: %v", err)
		}
		close(hold)
		settled(g, InSync)
		must(t, g.same())
		must(t, g.owner.Mark(t.Context(), 1))
		if _, synced := g.counts(); synced != 1 {
			t.Errorf("InSync called %d times", synced)
		}
		g.stop()
	})
}

func TestRecheckFindsWhatWentPastTheMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 4<<20, nil)
		g.attach()
		settled(g, InSync)
		g.live[1].set([]byte("unmirrored"), 3<<20)
		if g.same() == nil {
			t.Fatal("nothing to find")
		}
		must(t, g.owner.Recheck())
		s := settled(g, InSync)
		must(t, g.same())
		if _, synced := g.counts(); synced != 2 || s.Sent != ChunkSize {
			t.Errorf("InSync called %d times, %d bytes sent", synced, s.Sent)
		}
		g.stop()
	})
}

func TestFailingSourceIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 4<<20, nil)
		g.live[0].fail = errors.New("export is not there yet")
		g.attach()
		settled(g, Resync)
		time.Sleep(time.Second)
		settled(g, Resync)
		g.live[0].mu.Lock()
		g.live[0].fail = nil
		g.live[0].mu.Unlock()
		time.Sleep(time.Second)
		settled(g, InSync)
		must(t, g.same())
		g.stop()
	})
}

func TestNewerLinkReplacesTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		old := g.attachTo(deaf)
		synctest.Wait()
		g.attach()
		if err := <-old.lost; !errors.Is(err, ErrReplaced) {
			t.Errorf("old link: %v", err)
		}
		settled(g, InSync)
		must(t, g.same())
		g.stop()
		if _, peer := pipe(); g.owner.Attach(t.Context(), peer, Peer{}) == nil {
			t.Error("attached after the end")
		}
	})
}

// The end of the process must not be an answer: QEMU would take an error for
// final and go on without the mirror.
func TestEndLeavesWritesUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		g.degrade = func(context.Context) error { return errors.New("never") }
		done := make(chan error, 2)
		go func() { done <- g.write(0, []byte("x"), 0) }()
		time.Sleep(10 * time.Second)
		g.attachTo(deaf)
		go func() { done <- g.write(0, []byte("x"), 9) }()
		synctest.Wait()
		g.stop()
		for range 2 {
			if err := <-done; !errors.Is(err, nbd.ErrHangup) || !errors.Is(err, ErrClosed) {
				t.Errorf("write at the end: %v", err)
			}
		}
	})
}
