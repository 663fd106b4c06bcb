package snapshot

import (
	"context"

	"vmctl/snapshot/memory"
)

const (
	// fewPages is what a pause copies in about a millisecond: not worth a look
	// at the memory of a running guest.
	fewPages = 1024
	// mostPasses bounds the looks before one pause.
	mostPasses = 4
	// longestRest is the most checkpoints that pass without a look after looks
	// that did not help.
	longestRest = 64
)

// prePass decides how often the memory of a running guest is brought over
// before the guest is stopped. A look costs the processor time of comparing,
// and saves the pause the copying of what is not written again until then. A
// guest that changes little has no use for it; nor has one that writes the same
// pages over and over.
type prePass struct {
	due   bool   // what the guest wrote is not known: the link is new
	pages uint64 // that the last checkpoint brought over
	left  int    // checkpoints that the looks still rest
	rest  int    // how long they rested last
}

// wanted tells whether to look before the coming pause.
func (p *prePass) wanted() bool {
	if p.due {
		p.due = false
		return true
	}
	if p.left > 0 {
		p.left--
		return false
	}
	return p.pages > fewPages
}

// again tells whether another look is worth it after one that copied now
// pages, the one before it having copied before: not if little is left, or if
// the guest writes as fast as it is looked at.
func (p *prePass) again(passes int, before, now uint64) bool {
	return passes < mostPasses && now > fewPages && (passes == 1 || now < before-before/4)
}

// done takes in what the first look and the pause have copied; passes may be 0.
func (p *prePass) done(passes int, first, paused uint64) {
	p.pages = max(first, paused)
	switch {
	case passes == 0:
	case paused > fewPages && paused > first-first/4: // it was all written again
		p.rest = min(max(4, 2*p.rest), longestRest)
		p.left = p.rest
	default:
		p.rest = 0
	}
}

// lookAhead brings over memory of the running guest, as often as it is of use,
// and says how much the first look found.
func (p *Protector) lookAhead(ctx context.Context) (passes int, first uint64, err error) {
	if !p.passes.wanted() {
		p.finder.Check()
		return 0, 0, nil
	}
	for before := uint64(0); ; {
		var stats memory.Stats
		if stats, err = p.finder.Live(ctx); err != nil {
			return passes, first, err
		}
		if passes++; passes == 1 {
			first = stats.Pages
		}
		if !p.passes.again(passes, before, stats.Pages) {
			return passes, first, nil
		}
		before = stats.Pages
	}
}
