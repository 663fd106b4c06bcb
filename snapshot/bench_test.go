package snapshot

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vmctl/snapshot/memory"
)

// BenchmarkPrePass measures the pause of a guest that writes so many MB a
// second all over its memory, with live passes before the pause and without, in
// turns.
func BenchmarkPrePass(b *testing.B) {
	for _, size := range []int{256 << 20, 1 << 30} {
		for _, rate := range []int{2, 50, 200} {
			b.Run(fmt.Sprintf("%dMiB/%dMBs", size>>20, rate), func(b *testing.B) { benchmarkPrePass(b, size, rate) })
		}
	}
}

func benchmarkPrePass(b *testing.B, size, rate int) {
	g := newFakeGuest(b, size, nil)
	g.bench = true
	for at := 0; at < size; at += memory.PageSize {
		g.ram[at+at/memory.PageSize%memory.PageSize] = 1
	}
	began, next, written := time.Now(), 0, 0
	g.write = func(ram []byte) { // as many pages as are due
		for due := int(time.Since(began).Seconds() * float64(rate) * 1e6 / memory.PageSize); written < due; written++ {
			next = (next + 7919*memory.PageSize) % len(ram)
			for i := 0; i < memory.PageSize; i += 64 {
				ram[next+i]++
			}
		}
	}
	p, dial := g.protect(b, nil)
	stream, _, _ := dial(b.Context())
	if _, err := p.sender.Attach(b.Context(), stream); err != nil {
		b.Fatal(err)
	}
	g.checkpoint(b, p)
	ctx, cancel := context.WithCancel(b.Context())
	var working sync.WaitGroup
	began = time.Now()
	working.Go(func() { g.work(ctx) })
	var pauses [2][]time.Duration
	var copied [2]uint64
	rounds := max(2*b.N, 20)
	for n := range rounds {
		time.Sleep(500 * time.Millisecond)
		way := n % 2
		p.passes = prePass{pages: 1 << 20} // as after a busy checkpoint
		if way == 0 {
			p.passes.left = 1
		}
		report := g.checkpoint(b, p)
		pauses[way] = append(pauses[way], report.Pause)
		copied[way] += report.Copied
	}
	cancel()
	working.Wait()
	for way, name := range []string{"without", "with"} {
		slices.Sort(pauses[way])
		b.ReportMetric(float64(pauses[way][len(pauses[way])/2].Microseconds())/1000, "ms-"+name)
		b.ReportMetric(float64(copied[way])/float64(rounds/2), "pages-"+name)
	}
}
