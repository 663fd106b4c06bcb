package sim

import (
	"sync"
	"sync/atomic"
)

// Failure is a schedule that violated something.
type Failure struct {
	Seed uint64
	Err  error
}

// mostFailures ends a sweep early: five say as much as a thousand.
const mostFailures = 5

// Sweep plays the schedules of count seeds from the first one, several at a
// time. The sums do not depend on the order.
func Sweep(first, count uint64, workers int, options func(seed uint64) Options) (Stats, []Failure) {
	var (
		next  atomic.Uint64
		mu    sync.Mutex
		total Stats
		bad   []Failure
		wait  sync.WaitGroup
	)
	for range workers {
		wait.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= count {
					return
				}
				stats, err := Run(options(first + n))
				mu.Lock()
				total.Add(stats)
				if err != nil {
					bad = append(bad, Failure{first + n, err})
				}
				stop := len(bad) >= mostFailures
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wait.Wait()
	return total, bad
}
