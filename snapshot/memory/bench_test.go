package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

func fill(ram []byte) {
	rng := rand.New(rand.NewPCG(9, 9))
	for off := 0; off < len(ram); off += PageSize {
		for i := 0; i < PageSize; i += 16 {
			ram[off+i] = byte(rng.Uint32())
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, size := range []int{256 << 20, 1 << 30} {
		g := newGuest(b, size)
		fill(g.ram)
		live, shadow, delta := g.open(b)
		mustScan(b, live, shadow, delta, Options{})
		for _, percent := range []int{0, 5} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("%dMiB/changed=%d%%/threads=%d", size>>20, percent, threads), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for range b.N {
						b.StopTimer()
						rng := rand.New(rand.NewPCG(uint64(b.N), 1))
						for range size / PageSize * percent / 100 {
							g.page(rng.IntN(size / PageSize))[17]++
						}
						b.StartTimer()
						mustScan(b, live, shadow, delta, Options{Threads: threads})
					}
					b.ReportMetric(float64(size/PageSize)*float64(b.N)/b.Elapsed().Seconds(), "pages/s")
				})
			}
		}
	}
}

// One GiB of RAM of which the guest has touched 1 MiB.
func BenchmarkScanSparse(b *testing.B) {
	g := newGuest(b, 1<<30)
	fill(g.ram[512<<20 : 513<<20])
	live, shadow, delta := g.open(b)
	for b.Loop() {
		mustScan(b, live, shadow, delta, Options{})
	}
}

func BenchmarkEncodeApply(b *testing.B) {
	const size = 256 << 20
	g := newGuest(b, size)
	fill(g.ram)
	live, shadow, delta := g.open(b)
	mustScan(b, live, shadow, delta, Options{})
	delta.Reset()
	rng := rand.New(rand.NewPCG(4, 4))
	for range size / PageSize / 20 {
		_ = delta.Add(Run{rng.Uint64N(live.Pages()), 1})
	}
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("encode/compress=%v", compress), func(b *testing.B) {
			e, err := NewEncoder()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(delta.Pages() * PageSize))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Encode(context.Background(), shadow, delta, EncodeOptions{Compress: compress}, func(Chunk) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("apply/compress=%v", compress), func(b *testing.B) {
			chunks, _ := encode(b, shadow, delta, EncodeOptions{Compress: compress})
			peer, err := Create(filepath.Join(b.TempDir(), "peer"), size)
			if err != nil {
				b.Fatal(err)
			}
			defer peer.Close()
			b.SetBytes(int64(delta.Pages() * PageSize))
			for b.Loop() {
				apply(b, chunks, peer, live.Pages())
			}
		})
	}
}
