package memory

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultThreads is how many threads compare: two saturate what a guest's
// pause may take from a small host.
const DefaultThreads = 2

// segmentBlocks is what a thread takes at a time (4 MiB): memory is touched
// unevenly, so a fixed half each would leave one thread idle.
const segmentBlocks = 16

// Options of a Scan.
type Options struct {
	Threads int // 0 means DefaultThreads
	// Only, if not nil, has the pages that may differ; others are not looked at.
	Only *Delta
	// Audit is a range of blocks that is compared whole in spite of Only.
	Audit Range
}

// Range is the blocks from First up to, and without, End.
type Range struct{ First, End uint64 }

// Stats say what one Scan did.
type Stats struct {
	Pages    uint64 // pages that differed and were copied
	Bytes    uint64 // Pages in bytes
	Compared uint64 // pages looked at; the rest were holes, or not in Options.Only
	Missed   uint64 // pages of the audit that differed and were not in Options.Only
	Duration time.Duration
}

// Scan makes shadow equal to live and adds every page it had to copy to delta.
//
// With the guest stopped, the shadow is afterwards the RAM of that instant.
// With the guest running (to shorten the next pause) some copies may be torn;
// they differ from the live page, so a later Scan copies them again.
//
// On an error (also ctx's) the shadow is a mixture, and delta holds every page
// that changed in it: scan again. It returns ErrBusy at once, rather than wait
// in a pause, if the shadow is being read.
func Scan(ctx context.Context, live *Image, shadow *Shadow, delta *Delta, opts Options) (Stats, error) {
	started := time.Now()
	if err := shadow.acquire(); err != nil {
		return Stats{}, fmt.Errorf("scan guest RAM: %w", err)
	}
	defer shadow.release()
	if live.Pages() != shadow.Pages() || delta.pages != shadow.Pages() || opts.Only != nil && opts.Only.pages != shadow.Pages() {
		return Stats{}, fmt.Errorf("scan RAM of %d pages into a shadow of %d and a delta of %d: %w",
			live.Pages(), shadow.Pages(), delta.pages, ErrSize)
	}
	if err := checkSize(live.file, live.Size()); err != nil {
		return Stats{}, fmt.Errorf("scan guest RAM: %w", err)
	}
	threads := opts.Threads
	if threads <= 0 {
		threads = DefaultThreads
	}
	s := &scan{ctx: ctx, live: live, shadow: shadow, delta: delta, only: opts.Only, audit: opts.Audit}
	var others sync.WaitGroup
	for range threads - 1 {
		others.Go(s.work)
	}
	s.work()
	others.Wait()
	if err := checkSize(live.file, live.Size()); err != nil { // past the end looks like a hole
		s.fail(err)
	}
	pages := s.changed.Load()
	stats := Stats{Pages: pages, Bytes: pages * PageSize, Compared: s.compared.Load(), Missed: s.missed.Load(), Duration: time.Since(started)}
	if failure := s.failure.Load(); failure != nil {
		return stats, fmt.Errorf("scan guest RAM %s: %w", live.path, *failure)
	}
	return stats, nil
}

// scan is one Scan shared by its threads. Each word of the delta and each
// block of the shadow belongs to the thread that took its segment.
type scan struct {
	ctx    context.Context
	live   *Image
	shadow *Shadow
	delta  *Delta
	only   *Delta // nil: every page
	audit  Range

	next, changed, compared, missed atomic.Uint64
	failure                         atomic.Pointer[error]
}

// work takes segments until there are none or something failed.
func (s *scan) work() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			s.fail(fmt.Errorf("%w: %v", ErrFault, fault))
		}
	}()
	blocks := uint64(len(s.shadow.present))
	for s.failure.Load() == nil {
		if err := s.ctx.Err(); err != nil {
			s.fail(err)
			return
		}
		first := (s.next.Add(1) - 1) * segmentBlocks
		if first >= blocks {
			return
		}
		if err := s.segment(first, min(first+segmentBlocks, blocks)); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *scan) fail(err error) { s.failure.CompareAndSwap(nil, &err) }

// segment compares the blocks [first, last). A block never seen with memory
// behind it is asked for; as long as it is a hole it reads as zeros, which is
// what the shadow has there.
func (s *scan) segment(first, last uint64) error {
	data := first // no memory in the blocks from the last question up to here
	for block := first; block < last; block++ {
		look := s.look(block)
		if look == 0 {
			continue
		}
		if !s.shadow.present[block] {
			if block >= data {
				var err error
				if data, err = s.live.nextData(block); err != nil {
					return err
				}
			}
			if block < data {
				continue
			}
			s.shadow.present[block] = true
		}
		s.block(block, look)
	}
	return nil
}

// look has a bit for each page of a block that is to be compared.
func (s *scan) look(block uint64) uint64 {
	if s.only == nil || s.audit.First <= block && block < s.audit.End {
		return s.shadow.mask(block)
	}
	return s.only.words[block]
}

// block compares pages of one block and copies those that differ.
func (s *scan) block(block, look uint64) {
	start := block * BlockSize
	end := min(start+BlockSize, uint64(len(s.live.data)))
	live, shadow := s.live.data[start:end], s.shadow.data[start:end]
	var differ uint64
	for left := look; left != 0; left &= left - 1 {
		off := bits.TrailingZeros64(left) * PageSize
		from, to := live[off:off+PageSize], shadow[off:off+PageSize]
		if bytes.Equal(from, to) {
			continue
		}
		bit := uint64(1) << (off / PageSize)
		differ |= bit
		s.delta.words[block] |= bit
		copy(to, from)
	}
	s.compared.Add(uint64(bits.OnesCount64(look)))
	if differ == 0 {
		return
	}
	s.changed.Add(uint64(bits.OnesCount64(differ)))
	if s.only != nil {
		s.missed.Add(uint64(bits.OnesCount64(differ &^ s.only.words[block])))
	}
}
