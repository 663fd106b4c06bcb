package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Dirty tells which pages of a guest may have been written since the last
// Clear. It saves comparing the others.
type Dirty interface {
	// Allowed says why it may not be believed in the present situation.
	Allowed() error
	// Find adds every page that may have been written to named, and those of
	// them that were to sure.
	Find(named, sure *Delta) error
	// Clear begins anew. The guest must stand still.
	Clear() error
	Close() error
}

// sampleEvery is which part of the blocks is compared although their pages are
// known to be written: whether that changed them decides whether the next pause
// copies unseen. A page that was written with what it held costs the link its
// bytes then; so does none if more than one in mostSame are such.
const (
	sampleEvery = 16
	mostSame    = 4
)

// auditParts is in how many pauses an audit goes through all of the memory.
const auditParts = 64

// Methods of finding pages.
const (
	Compare   = "compare"
	SoftDirty = "soft-dirty"
)

// Finder brings what a guest changed into the shadow and its Delta. Without a
// Dirty it compares everything. With one it compares what that names, and a
// part of the rest in every pause; once the Dirty missed a page, or may not be
// believed any more, the Finder compares everything for good.
//
// One goroutine owns it.
type Finder struct {
	live       *Image
	shadow     *Shadow
	delta      *Delta
	dirty      Dirty // nil: everything is compared
	candidates *Delta
	sure       *Delta
	cleared    bool   // pages that dirty does not name are as in the shadow
	compares   bool   // also pages that were written for sure
	audit      uint64 // block that the next audit begins with
	sample     uint64 // block that the next sample begins with
	gaveUp     func(reason error)
}

// NewFinder returns a finder. dirty may be nil, and is the finder's from here
// on; gaveUp is told when it is not used any more, and why.
func NewFinder(live *Image, shadow *Shadow, delta *Delta, dirty Dirty, gaveUp func(error)) *Finder {
	return &Finder{live: live, shadow: shadow, delta: delta, dirty: dirty,
		candidates: NewDelta(shadow.Pages()), sure: NewDelta(shadow.Pages()), gaveUp: gaveUp}
}

// Method is how pages are found at present.
func (f *Finder) Method() string {
	if f.dirty == nil {
		return Compare
	}
	return SoftDirty
}

// Live brings over what can be had while the guest runs, with one thread, so
// that the guest keeps its processors. Copies may be torn: Stopped compares
// them again.
func (f *Finder) Live(ctx context.Context) (Stats, error) {
	f.check()
	opts := Options{Threads: 1}
	if f.find() {
		opts.Only = f.candidates
	}
	return Scan(ctx, f.live, f.shadow, f.delta, opts)
}

// Stopped makes the shadow equal to the memory of the guest, which must stand
// still until it returns.
func (f *Finder) Stopped(ctx context.Context) (Stats, error) {
	var opts Options
	if f.find() {
		opts.Only, opts.Audit = f.candidates, f.nextAudit()
		opts.Sure, opts.Sample = f.sure, f.nextSample()
	}
	stats, err := Scan(ctx, f.live, f.shadow, f.delta, opts)
	if stats.Sampled > 0 {
		f.compares = stats.Same*mostSame > stats.Sampled
	}
	if err == nil && stats.Missed > 0 {
		f.giveUp(fmt.Errorf("%d changed pages, %w", stats.Missed, ErrMissed))
		var all Stats
		all, err = Scan(ctx, f.live, f.shadow, f.delta, Options{})
		stats = stats.plus(all)
	}
	if err != nil || f.dirty == nil {
		return stats, err // nothing is cleared after a failure: the pages stay dirty
	}
	if err := f.dirty.Clear(); err != nil {
		f.giveUp(err)
		return stats, nil
	}
	f.cleared = true
	return stats, nil
}

// ErrMissed means that dirty pages were not named as such.
var ErrMissed = errors.New("which the kernel called clean")

// check looks at the situation.
func (f *Finder) check() {
	if f.dirty == nil {
		return
	}
	if err := f.dirty.Allowed(); err != nil {
		f.giveUp(err)
	}
}

// find fills the candidates; false means that every page is one.
func (f *Finder) find() bool {
	if f.dirty == nil || !f.cleared {
		return false
	}
	f.candidates.Reset()
	f.sure.Reset()
	if err := f.dirty.Find(f.candidates, f.sure); err != nil {
		f.giveUp(err)
		return false
	}
	return true
}

// nextAudit goes round through all blocks.
func (f *Finder) nextAudit() Range {
	blocks := uint64(len(f.shadow.present))
	step := (blocks + auditParts - 1) / auditParts
	r := Range{f.audit, min(f.audit+step, blocks)}
	if f.audit = r.End; f.audit == blocks {
		f.audit = 0
	}
	return r
}

// nextSample goes round, too; it is all of the blocks while little of what is
// written changes anything.
func (f *Finder) nextSample() Sample {
	if f.compares {
		return Sample{Every: 1}
	}
	f.sample++
	return Sample{f.sample, sampleEvery}
}

// giveUp compares everything from here on.
func (f *Finder) giveUp(reason error) {
	err := f.dirty.Close()
	f.dirty, f.cleared = nil, false
	if !errors.Is(reason, os.ErrProcessDone) { // an end is no failure of the bits
		f.gaveUp(errors.Join(reason, err))
	}
}

// Doubt has the next pause compare everything: the guest may have run before
// Stopped was through, and then a page was written between its copy and Clear.
func (f *Finder) Doubt() { f.cleared = false }

// Check looks at the situation, with the guest running: to be called before
// each pause that no Live comes before.
func (f *Finder) Check() { f.check() }

// Close lets go of the kernel's files; image and shadow stay the caller's.
func (f *Finder) Close() error {
	if f.dirty == nil {
		return nil
	}
	return f.dirty.Close()
}

// plus adds up two scans.
func (s Stats) plus(t Stats) Stats {
	return Stats{Pages: s.Pages + t.Pages, Bytes: s.Bytes + t.Bytes, Compared: s.Compared + t.Compared,
		Missed: s.Missed + t.Missed, Sampled: s.Sampled + t.Sampled, Same: s.Same + t.Same, Duration: s.Duration + t.Duration}
}
