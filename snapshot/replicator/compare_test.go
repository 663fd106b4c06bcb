package replicator

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Guests write while the compare reads slowly, links are cut and come back: in
// the end, and at every marker, replica and disk are equal. Time is the bubble's:
// a slow machine loses no link.
func TestReplicaEqualsTheDiskWhateverHappens(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { whateverHappens(t, seed) })
		})
	}
}

// seeds are of how many lives; the race detector sees some, make sim lives all.
func seeds() uint64 {
	if underRace {
		return 3
	}
	return 8
}

func whateverHappens(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 3))
	size := 3<<20 + random.IntN(100_000)
	g := newRig(t, size, func(o *Options) { o.AckDeadline = 50 * time.Millisecond })
	for _, l := range g.live {
		l.slow = func() { time.Sleep(time.Millisecond) }
	}
	for range 3 {
		c := g.attach()
		g.guests(random, size, 60) // four at once, while the compare runs
		if random.IntN(2) == 0 {
			g.waitInSync(t)
			must(t, g.same())
		}
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
			c.cut()
		}()
		g.guests(rand.New(rand.NewPCG(seed, 4)), size, 60) // while the link is cut
		<-cut
	}
	g.attach()
	g.guests(random, size, 30)
	g.waitInSync(t)
	must(t, g.same())
	g.stop()
}

// waitInSync attaches again whenever the link was lost, and not before: a link ends the
// one before it, also one that has not begun yet because the machine is slow.
func (g *rig) waitInSync(t *testing.T) {
	t.Helper()
	eventually(t, "in sync", func() bool {
		s := g.owner.State()
		select {
		case <-g.last.over:
			g.attach()
			time.Sleep(10 * time.Millisecond)
		default:
		}
		return s.Phase == InSync
	})
}

// guests lets four writers write, each in its own stripes of 1 KiB so that none
// writes over another's unfinished write, which no guest does either.
func (g *rig) guests(random *rand.Rand, size, writes int) {
	var all sync.WaitGroup
	for guest := range 4 {
		mine := rand.New(rand.NewPCG(random.Uint64(), 5))
		all.Go(func() {
			for range writes {
				stripe := mine.IntN(size/1024/4)*4 + guest
				if mine.IntN(2) == 0 {
					stripe = 4*mine.IntN(8) + guest // a hot place
				}
				off := stripe * 1024
				p := bytes.Repeat([]byte{byte(mine.Uint32())}, 1+mine.IntN(min(1024, size-off)))
				if err := g.write(mine.IntN(2), p, int64(off)); err != nil {
					g.t.Errorf("write: %v", err)
				}
				time.Sleep(time.Duration(mine.IntN(100)) * time.Microsecond)
			}
		})
	}
	all.Wait()
}

func TestSpans(t *testing.T) {
	holes := merge([]span{{50, 60}, {10, 20}, {15, 30}, {30, 31}, {90, 200}, {-5, 2}})
	if want := []span{{-5, 2}, {10, 31}, {50, 60}, {90, 200}}; !slices.Equal(holes, want) {
		t.Fatalf("merged: %v", holes)
	}
	for whole, want := range map[span][]span{
		{0, 100}:  {{2, 10}, {31, 50}, {60, 90}},
		{0, 2}:    nil,
		{12, 30}:  nil,
		{20, 55}:  {{31, 50}},
		{31, 50}:  {{31, 50}},
		{55, 70}:  {{60, 70}},
		{60, 300}: {{60, 90}, {200, 300}},
	} {
		if got := subtract(whole, holes); !slices.Equal(got, want) {
			t.Errorf("%v without %v: %v, want %v", whole, holes, got, want)
		}
	}
}

// A batch remembers what was forwarded into it exactly, also when it is much.
func TestTouchedIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	b := &batch{disk: 1, off: batchSize, length: batchSize}
	l := &link{batches: map[*batch]struct{}{b: {}}}
	touched := make([]bool, batchSize)
	for range 3 * mergeAbove {
		disk, off, length := random.IntN(2), int64(random.IntN(3*batchSize)), int64(1+random.IntN(3000))
		l.touch(disk, off, length)
		for at := off; at < off+length && disk == 1; at++ {
			if at >= b.off && at < b.off+b.length {
				touched[at-b.off] = true
			}
		}
	}
	left := make([]bool, batchSize)
	for _, s := range subtract(span{b.off, b.off + b.length}, merge(b.touched)) {
		for at := s.from; at < s.to; at++ {
			left[at-b.off] = true
		}
	}
	for i := range touched {
		if touched[i] == left[i] {
			t.Fatalf("byte %d: touched %v, left over %v", i, touched[i], left[i])
		}
	}
}

func TestWork(t *testing.T) {
	w := newWork([]Disk{{Size: batchSize*70 + 1}, {Size: 5}})
	must(t, w.addAll())
	if added, err := w.add(0, batchSize-1, 2); added != 0 || err != nil { // there already
		t.Fatalf("%d bytes added twice, %v", added, err)
	}
	var bytes int64
	for !w.finished() {
		disk, off, length, ok := w.take()
		if !ok || off%ChunkSize != 0 || length > batchSize {
			t.Fatalf("took %d bytes at %d, %t, with %d to do", length, off, ok, w.todo)
		}
		bytes += length
		w.done(disk, off, length, nil)
	}
	if bytes != batchSize*70+6 || w.left != 0 {
		t.Fatalf("%d bytes taken, %d left", bytes, w.left)
	}
	if added, _ := w.add(0, batchSize-1, 2); added != 2*ChunkSize || w.todo != 2 || w.finished() {
		t.Fatalf("a range across two batches: %d bytes added, %d to do", added, w.todo)
	}
	disk, off, length, ok := w.take()
	if disk != 0 || off != batchSize-ChunkSize || length != ChunkSize || !ok {
		t.Fatalf("took %d %d %d", disk, off, length)
	}
	// Put in again while it is examined: it is left to do.
	if added, _ := w.add(0, off, 1); added != 0 || w.todo != 2 {
		t.Fatalf("%d bytes added, %d to do", added, w.todo)
	}
	w.done(disk, off, length, nil)
	if w.todo != 2 || w.left != 2*ChunkSize {
		t.Fatalf("%d to do, %d bytes left", w.todo, w.left)
	}
	// Examined twice at once: the second one still counts.
	_, _, _, _ = w.take()
	w.done(disk, off, length, []span{{off, off + length}})
	if w.left != 2*ChunkSize {
		t.Fatalf("%d bytes left", w.left)
	}
	w.active++
	w.failed(disk, off, length)
	if w.todo != 2 || w.left != 2*ChunkSize || w.active != 0 {
		t.Fatalf("after a failure %d to do, %d bytes left", w.todo, w.left)
	}
}
