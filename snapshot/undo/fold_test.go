package undo

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// However many markers come to nothing, the log is never larger than the disk
// has bytes for the marker that is kept, and for each of the last two.
func TestFoldBoundsTheLog(t *testing.T) {
	const size = 1 << 20
	random := rand.New(rand.NewPCG(1, 1))
	d := mustOpen(t, filepath.Join(t.TempDir(), "disk"), size)
	model := make([]byte, size)
	for range 20 {
		scribble(t, random, d, model)
	}
	kept := bytes.Clone(model)
	must(t, d.Mark(1))
	for mark := uint64(2); mark < 60; mark++ {
		for range 20 {
			scribble(t, random, d, model)
		}
		must(t, d.Fold(1, mark))
		must(t, d.Mark(mark))
		if n := len(d.Marks()); n > 3 {
			t.Fatalf("markers %v", d.Marks())
		}
		if used, most := d.Used(), int64(3*(size+size/blockSize*headerSize)); used > most {
			t.Fatalf("after marker %d the log has %d bytes, %d are the most", mark, used, most)
		}
	}
	must(t, d.Rollback(1))
	if !bytes.Equal(content(t, d), kept) {
		t.Error("not as it was at the marker that was kept")
	}
	must(t, d.Fold(7, 9)) // no such marker
}

// A Fold that was cut off at any byte leaves the way back to every marker.
func TestFoldCutOff(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(2, 1))
	path := filepath.Join(dir, "disk")
	const size = 100_000
	d := mustOpen(t, path, size)
	model := make([]byte, size)
	copies := map[uint64][]byte{}
	for mark := uint64(1); mark < 5; mark++ {
		copies[mark] = bytes.Clone(model)
		must(t, d.Mark(mark))
		for range 3 {
			scribble(t, random, d, model)
		}
	}
	before := files(t, path)
	must(t, d.Fold(1, 4))
	must(t, d.Close())
	after := files(t, path)
	whole := after[segmentPath(path+".undo", 1)]
	old := before[segmentPath(path+".undo", 1)]
	if len(whole) <= len(old) {
		t.Fatal("nothing was folded")
	}
	for _, gone := range [][]uint64{nil, {2}, {2, 3}} { // removed so far
		for cut := len(old); cut <= len(whole); cut += 397 {
			if cut+397 > len(whole) || gone != nil {
				cut = len(whole)
			}
			must(t, os.RemoveAll(path+".undo"))
			must(t, os.Mkdir(path+".undo", 0o700))
			for name, data := range before {
				must(t, os.WriteFile(name, data, 0o600))
			}
			must(t, os.WriteFile(segmentPath(path+".undo", 1), whole[:cut], 0o600))
			must(t, os.WriteFile(filepath.Join(path+".undo", foldName), []byte("1"), 0o600))
			for _, sequence := range gone {
				must(t, os.Remove(segmentPath(path+".undo", sequence)))
			}
			d := mustOpen(t, path, size)
			if _, err := os.Stat(filepath.Join(path+".undo", foldName)); err == nil {
				t.Fatal("the intent is still there")
			}
			for _, mark := range []uint64{4, 3, 2, 1} {
				if slices.Contains(gone, mark) {
					continue
				}
				if err := d.Rollback(mark); err != nil {
					t.Fatalf("cut at %d of %d, without %v: back to %d: %v", cut, len(whole), gone, mark, err)
				}
				if !bytes.Equal(content(t, d), copies[mark]) {
					t.Fatalf("cut at %d of %d, without %v: marker %d is not as it was", cut, len(whole), gone, mark)
				}
			}
			must(t, d.Close())
		}
	}
}

// files reads a disk and its log.
func files(t *testing.T, path string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(path + ".undo/*")
	must(t, err)
	all := map[string][]byte{}
	for _, name := range append(names, path) {
		data, err := os.ReadFile(name)
		must(t, err)
		all[name] = data
	}
	return all
}
