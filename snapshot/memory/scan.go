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
	if live.Pages() != shadow.Pages() || delta.pages != shadow.Pages() || !opts.Only.fits(shadow) || !opts.Sure.fits(shadow) {
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
	s := &scan{ctx: ctx, live: live, shadow: shadow, delta: delta, Options: opts}
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
	stats := Stats{Pages: pages, Bytes: pages * PageSize, Compared: s.compared.Load(), Missed: s.missed.Load(),
		Sampled: s.sampled.Load(), Same: s.same.Load(), Duration: time.Since(started)}
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
	Options

	next, changed, compared, missed, sampled, same atomic.Uint64
	failure                                        atomic.Pointer[error]
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
	var run Run   // still to be copied unseen
	defer func() { s.copy(run) }()
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
			s.shadow.held.Add(int64(min(BlockSize, len(s.shadow.data)-int(block*BlockSize))))
		}
		run = s.block(block, look, run)
	}
	return nil
}

// look has a bit for each page of a block that is to be compared or copied.
func (s *scan) look(block uint64) uint64 {
	if s.Only == nil || s.Audit.First <= block && block < s.Audit.End {
		return s.shadow.mask(block)
	}
	return s.Only.words[block]
}

// unseen has a bit for each page of a block that is copied without comparing.
func (s *scan) unseen(block uint64) uint64 {
	if s.Sure == nil || s.Sample.has(block) {
		return 0
	}
	return s.Sure.words[block]
}

// block brings over the pages of one block that differ or are known to. It
// takes the run that is still to be copied, and gives the one that is then.
func (s *scan) block(block, look uint64, run Run) Run {
	unseen := look & s.unseen(block)
	s.delta.words[block] |= unseen
	run = s.copyRuns(block, unseen, run)
	compared := look &^ unseen
	differ := s.compare(block, compared)
	s.compared.Add(uint64(bits.OnesCount64(compared)))
	s.changed.Add(uint64(bits.OnesCount64(unseen | differ)))
	if s.Sure != nil {
		sampled := compared & s.Sure.words[block]
		s.sampled.Add(uint64(bits.OnesCount64(sampled)))
		s.same.Add(uint64(bits.OnesCount64(sampled &^ differ)))
	}
	if s.Only != nil {
		s.missed.Add(uint64(bits.OnesCount64(differ &^ s.Only.words[block])))
	}
	return run
}

// copyRuns copies pages of a block, neighbours at once and over the ends of
// blocks: a copy of a MiB and more does not read what it overwrites.
func (s *scan) copyRuns(block, pages uint64, run Run) Run {
	for left := pages; left != 0; {
		at := uint64(bits.TrailingZeros64(left))
		count := uint64(bits.TrailingZeros64(^(left >> at)))
		first := block*BlockPages + at
		if run.First+run.Count != first {
			s.copy(run)
			run = Run{First: first}
		}
		run.Count += count
		left &^= (1<<count - 1) << at
	}
	return run
}

func (s *scan) copy(run Run) {
	from, end := run.First*PageSize, (run.First+run.Count)*PageSize
	copy(s.shadow.data[from:end], s.live.data[from:end])
}

// compare copies those pages of a block that differ, and gives them.
func (s *scan) compare(block, pages uint64) (differ uint64) {
	start := block * BlockSize
	for left := pages; left != 0; left &= left - 1 {
		off := start + uint64(bits.TrailingZeros64(left))*PageSize
		from, to := s.live.data[off:off+PageSize], s.shadow.data[off:off+PageSize]
		if bytes.Equal(from, to) {
			continue
		}
		bit := left & -left
		differ |= bit
		s.delta.words[block] |= bit
		copy(to, from)
	}
	return differ
}
