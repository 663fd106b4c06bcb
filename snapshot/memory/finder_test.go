package memory

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
)

// fakeDirty names the pages it is told of; forget makes it miss some, and of
// those in unsure it does not say that they were written.
type fakeDirty struct {
	written  *Delta
	unsure   *Delta
	forget   map[uint64]bool
	allowed  error
	findErr  error
	clearErr error
	clears   int
	closed   bool
}

func (d *fakeDirty) Allowed() error { return d.allowed }

func (d *fakeDirty) Find(named, sure *Delta) error {
	_ = named.Merge(d.unsure)
	for run := range d.written.Runs() {
		for p := run.First; p < run.First+run.Count; p++ {
			if !d.forget[p] {
				_ = named.Add(Run{p, 1})
				_ = sure.Add(Run{p, 1})
			}
		}
	}
	return d.findErr
}

func (d *fakeDirty) Clear() error {
	d.clears++
	d.written.Reset()
	return d.clearErr
}

func (d *fakeDirty) Close() error { d.closed = true; return nil }

// tracked is a guest whose writes a fakeDirty is told of.
type tracked struct {
	*guest
	t      *testing.T
	dirty  *fakeDirty
	finder *Finder
	shadow *Shadow
	delta  *Delta
	gaveUp error
}

func newTracked(t *testing.T, pages int) *tracked {
	g := &tracked{guest: newGuest(t, pages*PageSize), t: t}
	var live *Image
	live, g.shadow, g.delta = g.open(t)
	g.dirty = &fakeDirty{written: NewDelta(uint64(pages)), unsure: NewDelta(uint64(pages)), forget: map[uint64]bool{}}
	g.finder = NewFinder(live, g.shadow, g.delta, g.dirty, func(err error) { g.gaveUp = err })
	return g
}

func (g *tracked) write(page uint64) {
	g.page(int(page))[5]++
	_ = g.dirty.written.Add(Run{page, 1})
}

func (g *tracked) stopped() Stats {
	g.t.Helper()
	stats, err := g.finder.Stopped(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return stats
}

func (g *tracked) exact() {
	g.t.Helper()
	if !bytes.Equal(g.ram, g.shadow.data) {
		g.t.Error("shadow differs from RAM")
	}
}

func TestFinderLooksOnlyAtWrittenPages(t *testing.T) {
	const pages = BlockPages * auditParts
	g := newTracked(t, pages)
	for p := range uint64(pages) {
		g.write(p)
	}
	if stats := g.stopped(); stats.Compared != pages || g.finder.Method() != SoftDirty {
		t.Fatalf("the first pause compared %d pages (%s)", stats.Compared, g.finder.Method())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		g.delta.Reset()
		for range 20 {
			g.write(rng.Uint64N(pages))
		}
		if _, err := g.finder.Live(context.Background()); err != nil {
			t.Fatal(err)
		}
		g.write(rng.Uint64N(pages))
		stats := g.stopped()
		if stats.Compared > pages/auditParts+21 {
			t.Fatalf("%d pages compared", stats.Compared)
		}
		g.exact()
		if n := g.delta.Pages(); n == 0 || n > 21 {
			t.Fatalf("%d pages in the delta", n)
		}
	}
	if g.gaveUp != nil || g.dirty.clears != 51 {
		t.Errorf("gave up: %v; cleared %d times", g.gaveUp, g.dirty.clears)
	}
}

// What was written for sure is not compared but for the sample; what only may
// have been is, and does not get into the delta unchanged.
func TestFinderCopiesUnseen(t *testing.T) {
	const pages = BlockPages * sampleEvery * 4
	g := newTracked(t, pages)
	for p := range uint64(pages) {
		g.write(p)
	}
	g.stopped()
	_ = g.dirty.unsure.Add(Run{0, pages / 2})
	for range 2 * sampleEvery {
		g.delta.Reset()
		for p := uint64(pages / 2); p < pages; p++ {
			g.write(p)
		}
		g.page(3)[1]++
		stats := g.stopped()
		g.exact()
		if want := uint64(pages/2 + pages/2/sampleEvery); stats.Compared != want {
			t.Errorf("%d pages compared, not %d: %d may have been written, the sample is %d", stats.Compared, want, pages/2, pages/2/sampleEvery)
		}
		if n := g.delta.Pages(); n != pages/2+1 || stats.Sampled != pages/2/sampleEvery || stats.Same != 0 {
			t.Errorf("%d pages in the delta, %d changed; %+v", n, pages/2+1, stats)
		}
	}
}

// A guest that writes what its memory held already costs the link one delta,
// not one each time.
func TestFinderComparesWritesThatChangeNothing(t *testing.T) {
	const pages = BlockPages * sampleEvery
	g := newTracked(t, pages)
	pause := func(changes bool) uint64 {
		g.delta.Reset()
		_ = g.dirty.written.Add(Run{0, pages})
		for p := 0; changes && p < pages; p++ {
			g.page(p)[9]++
		}
		g.stopped()
		g.exact()
		return g.delta.Pages()
	}
	pause(true)
	for round := range 3 {
		if n := pause(true); n != pages {
			t.Errorf("round %d: %d pages in the delta, %d changed", round, n, pages)
		}
		if n := pause(false); n != pages-BlockPages {
			t.Errorf("round %d: %d pages in the delta; of all but the sample it is not known that they did not change", round, n)
		}
		for range 3 {
			if n := pause(false); n != 0 {
				t.Errorf("round %d: %d pages in the delta, none changed", round, n)
			}
		}
		pause(true)
	}
}

// A page that is missed is found within one round of the audit, and from then
// on everything is compared.
func TestFinderAuditFindsWhatWasMissed(t *testing.T) {
	const pages = BlockPages * 20
	for _, missed := range []uint64{0, 1234, pages - 1} {
		g := newTracked(t, pages)
		for p := range uint64(pages) {
			g.write(p)
		}
		g.stopped()
		g.dirty.forget[missed] = true
		g.write(missed)
		rounds := 0
		for ; g.gaveUp == nil && rounds <= auditParts; rounds++ {
			g.stopped()
		}
		if !errors.Is(g.gaveUp, ErrMissed) || !g.dirty.closed || g.finder.Method() != Compare {
			t.Fatalf("page %d: not noticed in %d rounds: %v", missed, rounds, g.gaveUp)
		}
		g.exact()
		g.write(missed)
		g.stopped()
		g.exact()
	}
}

func TestFinderGivesUp(t *testing.T) {
	broken := errors.New("broken")
	for name, breakIt := range map[string]func(*fakeDirty){
		"situation": func(d *fakeDirty) { d.allowed = broken },
		"find":      func(d *fakeDirty) { d.findErr = broken },
		"clear":     func(d *fakeDirty) { d.clearErr = broken },
	} {
		t.Run(name, func(t *testing.T) {
			g := newTracked(t, 200)
			g.write(7)
			g.stopped()
			breakIt(g.dirty)
			g.dirty.forget[9] = name != "clear"
			g.write(9)
			g.finder.Check()
			g.stopped()
			g.stopped() // what broke in clearing is seen in the next pause
			g.exact()
			if !errors.Is(g.gaveUp, broken) || g.finder.Method() != Compare {
				t.Errorf("gave up: %v, %s", g.gaveUp, g.finder.Method())
			}
		})
	}
}

// After a scan that failed nothing may be called clean.
func TestFinderClearsNothingAfterAFailure(t *testing.T) {
	g := newTracked(t, 500)
	g.write(3)
	g.stopped()
	g.write(4)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.finder.Stopped(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if g.dirty.clears != 1 {
		t.Error("cleared after a failure")
	}
	g.stopped()
	g.exact()
}

// A guest that ran on while its pages were copied: what it wrote was cleared.
func TestFinderDoubts(t *testing.T) {
	g := newTracked(t, BlockPages*auditParts)
	g.write(3)
	g.stopped()
	g.page(2000)[1]++ // and the kernel does not know
	g.finder.Doubt()
	g.stopped()
	g.exact()
	if g.gaveUp != nil {
		t.Error(g.gaveUp)
	}
}
