package undo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmctl/snapshot/durable"
)

// A disk that grows, again and again, goes back to every marker and to what it
// held as if it had always been that large: the new part was empty then.
func TestGrownDiskGoesBack(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 9))
		path, size := filepath.Join(t.TempDir(), "d"), int64(512*(100+random.IntN(1000)))
		d := mustOpen(t, path, size)
		model := make([]byte, size)
		marks, newest := map[uint64][]byte{}, uint64(0)
		mark := func() {
			newest++
			must(t, d.Mark(newest))
			marks[newest] = bytes.Clone(model)
		}
		mark()
		for range 5 {
			scribble(t, random, d, model)
		}
		must(t, d.Hold())
		held := bytes.Clone(model)
		for range 40 {
			scribble(t, random, d, model)
			switch random.IntN(8) {
			case 0:
				mark()
			case 1:
				must(t, d.Fold(1, newest))
				marks = map[uint64][]byte{1: marks[1], newest: marks[newest]}
			case 2, 3:
				must(t, d.Close())
				larger := size + 512*int64(1+random.IntN(40))
				must(t, Grow(durable.Files{}, path, size, larger))
				must(t, Grow(durable.Files{}, path, size, larger)) // as after a crash
				d, size = mustOpen(t, path, larger), larger
				model = append(model, make([]byte, larger-int64(len(model)))...)
			}
		}
		same := func(what string, want []byte) {
			want = append(bytes.Clone(want), make([]byte, size-int64(len(want)))...)
			if now := content(t, d); !bytes.Equal(now, want) {
				at := 0
				for now[at] == want[at] {
					at++
				}
				t.Fatalf("seed %d: %s is not what it was, from byte %d of %d on", seed, what, at, size)
			}
		}
		if seed%2 == 0 {
			must(t, d.CheckHold())
			must(t, d.Restore())
			same("what was held", held)
			newest = 1 // Restore is not in the log of a marker that came after Hold
		}
		for n := newest; n > 0; n-- {
			if want := marks[n]; want != nil {
				must(t, d.Rollback(n))
				same("a marker", want)
			}
		}
	}
}

// Only an image of the size that was said grows, and only one that nobody has open.
func TestGrowRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	d := mustOpen(t, path, 10240)
	if err := Grow(durable.Files{}, path, 10240, 20480); !errors.Is(err, ErrInUse) {
		t.Errorf("an open disk: %v", err)
	}
	must(t, d.Close())
	for _, sizes := range [][2]int64{{5120, 20480}, {20480, 10240}, {5120, 8192}} {
		if err := Grow(durable.Files{}, path, sizes[0], sizes[1]); !errors.Is(err, ErrSize) {
			t.Errorf("10240 bytes, from %d to %d: %v", sizes[0], sizes[1], err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 10240 {
		t.Errorf("a refusal changed it: %v %v", info, err)
	}
	if err := Grow(durable.Files{}, path+"x", 1, 2); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no disk: %v", err)
	}
	// A segment of a larger disk is not this one's.
	d = mustOpen(t, path, 10240)
	must(t, d.Mark(1))
	must(t, d.Close())
	must(t, os.Truncate(path, 5120))
	d = mustOpen(t, path, 5120)
	if err := d.Rollback(1); !errors.Is(err, ErrDamaged) {
		t.Errorf("a segment of a larger disk: %v", err)
	}
}
