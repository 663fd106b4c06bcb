package memory

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func encode(t testing.TB, shadow *Shadow, delta *Delta, opts EncodeOptions) ([]Chunk, Summary) {
	t.Helper()
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	var chunks []Chunk
	sum, err := e.Encode(context.Background(), shadow, delta, opts, func(c Chunk) error {
		chunks = append(chunks, slices.Clone(c))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, sum
}

func apply(t testing.TB, chunks []Chunk, to *File, pages uint64) *Digest {
	t.Helper()
	d, err := NewDecoder(pages)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	digest := NewDigest()
	for _, c := range chunks {
		digest.Add(c)
		if err := d.Apply(c, to); err != nil {
			t.Fatal(err)
		}
	}
	return digest
}

func TestPeerFollowsTheSource(t *testing.T) {
	const size = 6<<20 + 3*PageSize
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		g := newGuest(t, size)
		live, shadow, delta := g.open(t)
		path := filepath.Join(t.TempDir(), "peer")
		peer, err := Create(path, size)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		for round := range 5 {
			if round == 2 {
				clear(g.ram[1<<20 : 5<<20]) // long zero runs
			}
			scribble(rng, g.ram, rng.IntN(600))
			mustScan(t, live, shadow, delta, Options{})
			instant := slices.Clone(g.ram)
			scribble(rng, g.ram, 50) // the guest runs on while its delta is sent
			if rng.IntN(3) == 0 {
				continue // this checkpoint is lost: its pages go with the next
			}
			chunks, sum := encode(t, shadow, delta, EncodeOptions{Compress: seed%2 == 0})
			if sum.Pages+sum.Zeros != delta.Pages() || sum.Chunks != uint64(len(chunks)) {
				t.Fatalf("summary %+v for %d pages in %d chunks", sum, delta.Pages(), len(chunks))
			}
			if digest := apply(t, chunks, peer, live.Pages()); digest.Sum() != sum.Checksum {
				t.Fatal("digest differs")
			}
			delta.Reset()
			got := make([]byte, size)
			if _, err := peer.ReadAt(got, 0); err != nil || !bytes.Equal(got, instant) {
				t.Fatalf("seed %d round %d: peer differs from the instant of the scan (%v)", seed, round, err)
			}
		}
	}
}

func TestFullImageSkipsWhatIsZero(t *testing.T) {
	const size = 64 << 20
	g := newGuest(t, size)
	live, shadow, delta := g.open(t)
	scribble(rand.New(rand.NewPCG(5, 5)), g.ram, 300)
	mustScan(t, live, shadow, delta, Options{})
	delta.Reset()
	if _, err := shadow.MarkAll(delta); err != nil {
		t.Fatal(err)
	}
	chunks, sum := encode(t, shadow, delta, EncodeOptions{Compress: true, SkipZero: true})
	if sum.Zeros != 0 || sum.Pages == 0 || sum.Pages > 300 {
		t.Errorf("summary %+v", sum)
	}
	peer, err := Create(filepath.Join(t.TempDir(), "peer"), size)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	apply(t, chunks, peer, live.Pages())
	a, errA := HashPages(nil, peer, 0, live.Pages())
	b, errB := HashPages(nil, live, 0, live.Pages())
	if errA != nil || errB != nil || !slices.Equal(a, b) || uint64(len(a)) != live.Pages() {
		t.Errorf("page hashes differ (%v, %v)", errA, errB)
	}
	if _, err := HashPages(nil, live, live.Pages()-1, 2); !errors.Is(err, ErrBounds) {
		t.Errorf("past the end: %v", err)
	}
}

func TestDigestSeesOrderLossAndChange(t *testing.T) {
	g := newGuest(t, 4<<20)
	live, shadow, delta := g.open(t)
	scribble(rand.New(rand.NewPCG(6, 6)), g.ram, 900)
	mustScan(t, live, shadow, delta, Options{})
	chunks, sum := encode(t, shadow, delta, EncodeOptions{})
	digest := func(chunks []Chunk) uint64 {
		d := NewDigest()
		for _, c := range chunks {
			d.Add(c)
		}
		return d.Sum()
	}
	swapped := slices.Clone(chunks)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	if digest(chunks) != sum.Checksum || digest(swapped) == sum.Checksum || digest(chunks[1:]) == sum.Checksum ||
		digest(append(slices.Clone(chunks), chunks[0])) == sum.Checksum {
		t.Error("digest does not tell deltas apart")
	}
}

// Every flipped bit of a chunk must be found, and a chunk with a right checksum
// but wrong content must be refused.
func TestDamagedChunksAreRefused(t *testing.T) {
	g := newGuest(t, 1<<20)
	live, shadow, delta := g.open(t)
	g.page(3)[9], g.page(4)[9] = 1, 2
	mustScan(t, live, shadow, delta, Options{})
	for _, compress := range []bool{false, true} {
		chunks, _ := encode(t, shadow, delta, EncodeOptions{Compress: compress})
		d, err := NewDecoder(live.Pages())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for i := range min(len(chunks[0])*8, 4096) {
			bad := slices.Clone(chunks[0])
			bad[i/8] ^= 1 << (i % 8)
			if err := d.Check(bad, nil); !errors.Is(err, ErrChunk) {
				t.Fatalf("bit %d: %v", i, err)
			}
		}
		for n := range chunks[0] {
			if err := d.Check(chunks[0][:n], nil); !errors.Is(err, ErrChunk) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
		resum := func(change func(Chunk)) Chunk {
			c := slices.Clone(chunks[0])
			change(c)
			binary.LittleEndian.PutUint64(c, xxhash.Sum64(c[8:]))
			return c
		}
		for name, tc := range map[string]struct {
			chunk Chunk
			want  error
		}{
			"page outside":   {resum(func(c Chunk) { c[chunkHeader+1] = 1 }), ErrBounds},
			"index overflow": {resum(func(c Chunk) { binary.LittleEndian.PutUint64(c[chunkHeader:], 1<<64-1) }), ErrBounds},
			"empty run":      {resum(func(c Chunk) { c[chunkHeader+8] = 0 }), ErrBounds},
			"longer run":     {resum(func(c Chunk) { c[chunkHeader+8]++ }), ErrChunk},
			"zero run":       {resum(func(c Chunk) { c[chunkHeader+11] = 0x80 }), ErrChunk},
			"version":        {resum(func(c Chunk) { c[8]++ }), ErrChunk},
			"flags":          {resum(func(c Chunk) { c[9] |= 2 }), ErrChunk},
			"runs":           {resum(func(c Chunk) { c[12]++ }), ErrChunk},
			"size":           {resum(func(c Chunk) { c[21]++ }), ErrChunk},
			"zstd flag":      {resum(func(c Chunk) { c[9] ^= 1 }), ErrChunk},
		} {
			if err := d.Check(tc.chunk, nil); !errors.Is(err, tc.want) {
				t.Errorf("%s (compress %v): %v", name, compress, err)
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	g := newGuest(f, 1<<20)
	live, shadow, delta := g.open(f)
	g.page(3)[5], g.page(4)[6], g.page(9)[0] = 1, 2, 3 // small seeds: fuzzing is slow on large ones
	mustScan(f, live, shadow, delta, Options{})
	_ = delta.Add(Run{100, 50})
	for _, compress := range []bool{false, true} {
		chunks, _ := encode(f, shadow, delta, EncodeOptions{Compress: compress})
		f.Add([]byte(chunks[0]), false)
		f.Add([]byte(chunks[0][8:]), true)
	}
	f.Add([]byte{}, false)
	d, err := NewDecoder(256)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, sign bool) {
		if sign { // reach behind the checksum
			data = append(make([]byte, 8), data...)
			binary.LittleEndian.PutUint64(data, xxhash.Sum64(data[8:]))
		}
		checked := d.Check(data, nil)
		target := &bounded{t: t}
		if err := d.Apply(data, target); (err == nil) != (checked == nil) {
			t.Fatalf("check says %v, apply %v", checked, err)
		}
		if checked != nil && target.writes > 0 {
			t.Fatal("a bad chunk was written")
		}
	})
}

// bounded fails the test on a write outside 1 MiB.
type bounded struct {
	t      *testing.T
	writes int
}

func (b *bounded) WriteAt(p []byte, off int64) (int, error) {
	return len(p), b.Zero(off, int64(len(p)))
}

func (b *bounded) Zero(off, length int64) error {
	b.writes++
	if off < 0 || length <= 0 || off > 1<<20 || length > 1<<20-off {
		b.t.Fatalf("write of %d at %d", length, off)
	}
	return nil
}

func TestRuns(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		pages := uint64(1 + rng.IntN(300))
		d, other := NewDelta(pages), NewDelta(pages)
		want := make([]bool, pages)
		for range rng.IntN(12) {
			first := rng.Uint64N(pages)
			run := Run{first, 1 + rng.Uint64N(pages-first)%90}
			if err := []*Delta{d, other}[rng.IntN(2)].Add(run); err != nil {
				t.Fatal(err)
			}
			for p := run.First; p < run.First+run.Count; p++ {
				want[p] = true
			}
		}
		if err := d.Merge(other); err != nil {
			t.Fatal(err)
		}
		got := make([]bool, pages)
		last := int64(-2)
		for run := range d.Runs() {
			if int64(run.First) <= last+1 && last >= 0 {
				t.Fatalf("seed %d: run %v is out of order or should join the one before", seed, run)
			}
			for p := run.First; p < run.First+run.Count; p++ {
				got[p] = true
			}
			last = int64(run.First+run.Count) - 1
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: runs do not give the set", seed)
		}
	}
	if err := NewDelta(5).Add(Run{4, 2}); !errors.Is(err, ErrBounds) {
		t.Errorf("outside: %v", err)
	}
}
