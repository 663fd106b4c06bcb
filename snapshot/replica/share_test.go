package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a link that passes a number of bytes a second, one connection's chunk
// after the other's, as they come.
type pipe struct {
	turn chan struct{} // a mutex would hold the test's clock
	rate int
	full int // bytes of full images
	all  int
}

func (p *pipe) write(bytes int, full bool) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	time.Sleep(time.Duration(bytes) * time.Second / time.Duration(p.rate))
	p.all += bytes
	if full {
		p.full += bytes
	}
}

// send is a sender's way through a share and the link.
func (p *pipe) send(ctx context.Context, s *Share, bulk bool, bytes int) error {
	const chunk = 256 << 10
	s.begin(bulk)
	defer s.end(bulk)
	for ; bytes > 0 && ctx.Err() == nil; bytes -= chunk {
		if err := s.chunk(ctx, bulk, chunk); err != nil {
			return err
		}
		p.write(chunk, bulk)
	}
	return ctx.Err()
}

// Seven guests send 1.5 MiB every second over 16 MiB a second, while the eighth
// sends a full image: no delta is late by more than the full image's eighth,
// and the full image uses what is left.
func TestFullImageDoesNotStarveDeltas(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprintf("share=%v", share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s *Share
				if share {
					s = NewShare()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				p := &pipe{turn: make(chan struct{}, 1), rate: 16 << 20}
				var guests sync.WaitGroup
				for range 4 { // as many connections' worth as one has buffers
					guests.Go(func() {
						for ctx.Err() == nil {
							_ = p.send(ctx, s, true, 64<<20)
						}
					})
				}
				var mu sync.Mutex
				var worst time.Duration
				deltas := 0
				for range 7 {
					guests.Go(func() {
						for ctx.Err() == nil {
							began := time.Now()
							if p.send(ctx, s, false, 1536<<10) == nil {
								mu.Lock()
								worst, deltas = max(worst, time.Since(began)), deltas+1
								mu.Unlock()
							}
							time.Sleep(time.Until(began.Add(time.Second)))
						}
					})
				}
				guests.Wait()
				t.Logf("%d deltas, the slowest %v; %.0f %% of %d MiB were full images'", deltas, worst, 100*float64(p.full)/float64(p.all), p.all>>20)
				// The seven deltas themselves, an eighth more, what is left of the
				// eighth before, and one chunk of each full image under way.
				bytes := 7*1536<<10*9/8 + mostCredit + 4*256<<10
				if bound := time.Duration(bytes) * time.Second / time.Duration(p.rate); share != (worst <= bound) {
					t.Errorf("the slowest delta took %v, %v is the bound", worst, bound)
				}
				if busy := float64(p.all) / 30 / float64(p.rate); share && (busy < 0.95 || p.full < p.all/5) {
					t.Errorf("the link was used to %.0f %%, full images got %d of %d MiB", 100*busy, p.full>>20, p.all>>20)
				}
			})
		})
	}
}

// Deltas that never end do not stop a full image, and neither does one that
// hangs.
func TestFullImageGetsAnEighth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewShare()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		p := &pipe{turn: make(chan struct{}, 1), rate: 8 << 20}
		var guests sync.WaitGroup
		for range 3 {
			guests.Go(func() { _ = p.send(ctx, s, false, 1<<30) })
		}
		guests.Go(func() { _ = p.send(ctx, s, true, 1<<30) })
		guests.Wait()
		if part := float64(p.full) / float64(p.all); part < 0.09 || part > 0.16 {
			t.Errorf("the full image got %.0f %%", 100*part)
		}
		s.begin(false)
		began := time.Now()
		for range 10 {
			_ = s.chunk(t.Context(), true, 256<<10)
		}
		if waited := time.Since(began); waited > 10*fullPatience || waited == 0 {
			t.Errorf("ten chunks waited %v for a delta that hangs", waited)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := s.chunk(ended, true, 1<<20); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
