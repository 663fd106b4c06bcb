package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// memcpy copies all of from, with as many threads as a pause has.
func memcpy(to, from []byte) time.Duration {
	began := time.Now()
	var threads sync.WaitGroup
	half := len(from) / DefaultThreads
	for i := range DefaultThreads {
		threads.Go(func() { copy(to[i*half:(i+1)*half], from[i*half:(i+1)*half]) })
	}
	threads.Wait()
	return time.Since(began)
}

// copyPages copies the same pages and nothing else, runs at once, each thread a
// half of the memory: what copying them costs with all bookkeeping left out.
func copyPages(to, from []byte, pages *Delta) time.Duration {
	var halves [DefaultThreads][]Run
	for run := range pages.Runs() {
		half := min(int(run.First*PageSize)*DefaultThreads/len(from), DefaultThreads-1)
		halves[half] = append(halves[half], run)
	}
	began := time.Now()
	var threads sync.WaitGroup
	for _, runs := range halves {
		threads.Go(func() {
			for _, run := range runs {
				copy(to[run.First*PageSize:(run.First+run.Count)*PageSize], from[run.First*PageSize:])
			}
		})
	}
	threads.Wait()
	return time.Since(began)
}

// BenchmarkPause is what a pause does with memory, interleaved with a plain
// copy of as many bytes in one piece, and with one of the same pages: the shares
// are of the medians of the rates. Pages change
// one by one at random, in rows of 64, or all; they are found by comparing
// everything, or known.
func BenchmarkPause(b *testing.B) {
	const size = 256 << 20
	const pages = size / PageSize
	g := newGuest(b, size)
	fill(g.ram)
	live, shadow, delta := g.open(b)
	mustScan(b, live, shadow, delta, Options{})
	plain := make([]byte, size)
	memcpy(plain, g.ram)
	for _, row := range []int{1, 64, pages} {
		for _, known := range []bool{false, true} {
			b.Run(fmt.Sprintf("rows=%d/known=%v", row, known), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				changed := pages
				if row < pages {
					changed = pages / 4
				}
				only := NewDelta(pages)
				var pause, copied, pagewise []time.Duration
				for range max(b.N, 11) {
					only.Reset()
					for only.Pages() < uint64(changed) {
						first := rng.IntN(pages/row) * row
						_ = only.Add(Run{uint64(first), uint64(row)})
					}
					for run := range only.Runs() {
						for p := run.First; p < run.First+run.Count; p++ {
							g.page(int(p))[rng.IntN(PageSize)]++
						}
					}
					opts := Options{}
					if known {
						opts.Only, opts.Sure, opts.Sample = only, only, Sample{uint64(len(pause)), sampleEvery}
					}
					stats, err := Scan(context.Background(), live, shadow, delta, opts)
					if err != nil || stats.Pages < uint64(changed) {
						b.Fatal(stats, err)
					}
					pause = append(pause, stats.Duration)
					copied = append(copied, memcpy(plain[:changed*PageSize], g.ram[:changed*PageSize]))
					pagewise = append(pagewise, copyPages(plain, g.ram, only))
				}
				slices.Sort(pause)
				slices.Sort(copied)
				slices.Sort(pagewise)
				p, c, s := pause[len(pause)/2], copied[len(copied)/2], pagewise[len(pagewise)/2]
				bytes := float64(changed) * PageSize
				b.ReportMetric(bytes/p.Seconds()/1e9, "GB/s-pause")
				b.ReportMetric(bytes/c.Seconds()/1e9, "GB/s-memcpy")
				b.ReportMetric(100*c.Seconds()/p.Seconds(), "%of-memcpy")
				b.ReportMetric(bytes/s.Seconds()/1e9, "GB/s-same-pages")
			})
		}
	}
}
