package memory

import (
	"fmt"
	"iter"
	"math/bits"
)

// Delta is a set of pages: those whose copy in the shadow the peer does not
// have yet. Its size is fixed (32 KiB for each GiB of RAM), so it never
// overflows and never allocates. It is not safe for concurrent use.
type Delta struct {
	pages uint64
	words []uint64
}

// NewDelta returns an empty set for an image of that many pages.
func NewDelta(pages uint64) *Delta {
	return &Delta{pages: pages, words: make([]uint64, (pages+BlockPages-1)/BlockPages)}
}

// Run is a row of neighbouring pages.
type Run struct {
	First, Count uint64
}

// Reset empties the set: the peer has everything.
func (d *Delta) Reset() { clear(d.words) }

// Pages is the number of pages in the set.
func (d *Delta) Pages() uint64 {
	n := 0
	for _, w := range d.words {
		n += bits.OnesCount64(w)
	}
	return uint64(n)
}

// Add puts the pages of a run into the set.
func (d *Delta) Add(run Run) error {
	if run.Count > d.pages || run.First > d.pages-run.Count {
		return fmt.Errorf("pages %d+%d of %d: %w", run.First, run.Count, d.pages, ErrBounds)
	}
	for p := run.First; p < run.First+run.Count; p++ {
		d.words[p/BlockPages] |= 1 << (p % BlockPages)
	}
	return nil
}

// Merge adds the pages of other, which must be of the same image.
func (d *Delta) Merge(other *Delta) error {
	if d.pages != other.pages {
		return fmt.Errorf("merge a delta of %d pages into one of %d: %w", other.pages, d.pages, ErrSize)
	}
	for i, w := range other.words {
		d.words[i] |= w
	}
	return nil
}

// fits tells whether a set, if there is one, is of the shadow's pages.
func (d *Delta) fits(shadow *Shadow) bool { return d == nil || d.pages == shadow.Pages() }

// Has tells whether a page is in the set.
func (d *Delta) Has(page uint64) bool {
	return page < d.pages && d.words[page/BlockPages]&(1<<(page%BlockPages)) != 0
}

// Runs gives the pages in rising order as the longest possible runs.
func (d *Delta) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		var run Run
		for i, w := range d.words {
			base := uint64(i) * BlockPages
			for at := uint64(0); at < BlockPages && w>>at != 0; {
				at += uint64(bits.TrailingZeros64(w >> at))
				n := uint64(bits.TrailingZeros64(^(w >> at)))
				if run.Count > 0 && run.First+run.Count == base+at {
					run.Count += n
				} else {
					if run.Count > 0 && !yield(run) {
						return
					}
					run = Run{base + at, n}
				}
				at += n
			}
		}
		if run.Count > 0 {
			yield(run)
		}
	}
}
