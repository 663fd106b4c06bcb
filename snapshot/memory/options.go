package memory

import "time"

// Options of a Scan.
type Options struct {
	Threads int // 0 means DefaultThreads
	// Only, if not nil, has the pages that may differ; others are not looked at.
	Only *Delta
	// Audit is a range of blocks that is compared whole in spite of Only.
	Audit Range
	// Sure, if not nil, has pages of Only that were written: they are copied
	// unseen, which spares reading the shadow, except in the sampled blocks.
	Sure   *Delta
	Sample Sample
}

// Sample is each Every-th block, from First on; none if Every is 0.
type Sample struct{ First, Every uint64 }

func (s Sample) has(block uint64) bool { return s.Every > 0 && block%s.Every == s.First%s.Every }

// Range is the blocks from First up to, and without, End.
type Range struct{ First, End uint64 }

// Stats say what one Scan did.
type Stats struct {
	Pages    uint64 // pages copied: they differed, or were in Options.Sure
	Bytes    uint64 // Pages in bytes
	Compared uint64 // pages looked at; the rest were holes, copied unseen, or not in Options.Only
	Missed   uint64 // pages of the audit that differed and were not in Options.Only
	Sampled  uint64 // pages of Options.Sure that were compared
	Same     uint64 // pages of those that did not differ
	Duration time.Duration
}
