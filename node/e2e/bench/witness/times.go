package main

import (
	"slices"
	"sync"
	"time"
)

// times collects how long the witness took to answer.
type times struct {
	mu   sync.Mutex
	sent int
	took []time.Duration
}

func (t *times) count() {
	t.mu.Lock()
	t.sent++
	t.mu.Unlock()
}

func (t *times) add(d time.Duration) {
	t.mu.Lock()
	t.took = append(t.took, d)
	t.mu.Unlock()
}

// take gives what was collected and begins anew.
func (t *times) take() (sent int, took []time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sent, took = t.sent, t.took
	t.sent, t.took = 0, nil
	slices.Sort(took)
	return sent, took
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
