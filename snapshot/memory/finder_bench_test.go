package memory

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vmctl/snapshot/shmtest"
)

// written is the page that spread wrote last.
var written int

// spread writes to n pages, with a stride, so that each is new for a long while.
func spread(ram []byte, n int) {
	for range n {
		written = (written + 7919) % (len(ram) / PageSize)
		ram[written*PageSize+n%PageSize]++
	}
}

// BenchmarkFinder is what a pause does with the memory of a guest that wrote so
// many MB a second for half a second, by comparing everything and by soft-dirty
// bits, in turns. Both ways take the pages of one guest over into one shadow.
func BenchmarkFinder(b *testing.B) {
	for _, size := range []int{256 << 20, 1 << 30} {
		p := startProgram(b, shmtest.TempDir(b), size/PageSize, envIdle+"=1")
		dirty := p.finder(func(err error) { b.Error(err) })
		compare := NewFinder(p.live, p.shadow, p.delta, nil, nil)
		p.say(fmt.Sprintf("write %d", size/PageSize))
		p.stopped(dirty)
		p.stopped(dirty)
		for _, rate := range []int{0, 2, 50} {
			b.Run(fmt.Sprintf("%dMiB/%dMBs", size>>20, rate), func(b *testing.B) {
				pages := rate * 1e6 / 2 / PageSize
				var took [2][]time.Duration
				for n := range 2 * max(b.N, 11) {
					p.say(fmt.Sprintf("write %d", pages))
					way, f := n%2, []*Finder{compare, dirty}[n%2]
					began := time.Now()
					if got := p.stopped(f); int(got.Pages) != pages {
						b.Fatalf("%d pages found, %d were written", got.Pages, pages)
					}
					took[way] = append(took[way], time.Since(began))
					if f == compare {
						p.stopped(dirty) // it clears the bits
					}
				}
				for way, name := range []string{"compare", "soft-dirty"} {
					slices.Sort(took[way])
					b.ReportMetric(float64(took[way][len(took[way])/2].Microseconds())/1000, "ms-"+name)
				}
			})
		}
		_ = p.cmd.Process.Kill()
	}
}
