package undo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func mustOpen(t testing.TB, path string, size int64) *Disk {
	t.Helper()
	d, err := Open(path, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, d *Disk) []byte {
	t.Helper()
	all := make([]byte, d.Size())
	_, err := d.ReadAt(all, 0)
	must(t, err)
	return all
}

// scribble does one random change, the same to the disk and to a copy.
func scribble(t testing.TB, random *rand.Rand, d *Disk, model []byte) {
	t.Helper()
	size := int(d.Size())
	length := []int{1, 512, 4096, 4097, 65536, 300_000}[random.IntN(6)]
	length = min(1+random.IntN(length), size)
	off := random.IntN(size - length + 1)
	if random.IntN(4) == 0 {
		must(t, d.Zero(int64(off), int64(length)))
		clear(model[off : off+length])
		return
	}
	p := bytes.Repeat([]byte{byte(random.Uint32())}, length)
	_, err := d.WriteAt(p, int64(off))
	must(t, err)
	copy(model[off:], p)
}

// Random writes with markers, reopening and dropping in between: a rollback
// equals the copy taken at the marker, whatever came after.
func TestRollbackEqualsTheCopy(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			size := int64(1<<20 + random.IntN(9000)) // seldom a multiple of a block
			path := filepath.Join(t.TempDir(), "disk")
			d := mustOpen(t, path, size)
			model := make([]byte, size)
			copies := map[uint64][]byte{}
			var marks []uint64
			next := uint64(1)
			for range 60 {
				switch action := random.IntN(20); {
				case action < 13:
					scribble(t, random, d, model)
				case action < 16:
					must(t, d.Mark(next))
					copies[next] = bytes.Clone(model)
					marks = append(marks, next)
					next += 1 + random.Uint64N(3)
				case action < 17:
					must(t, d.Sync())
				case action < 18:
					must(t, d.Close())
					d = mustOpen(t, path, size)
				case action < 19 && len(marks) > 3 && random.IntN(2) == 0:
					must(t, d.Fold(marks[1], marks[len(marks)-1]))
					marks = slices.Delete(marks, 2, len(marks)-1)
				case action < 19 && len(marks) > 2:
					must(t, d.Drop(marks[1]))
					marks = marks[1:]
				case len(marks) > 0:
					i := random.IntN(len(marks))
					must(t, d.Rollback(marks[i]))
					model = bytes.Clone(copies[marks[i]])
					marks = marks[:i+1]
				}
				if got := d.Marks(); !slices.Equal(got, marks) {
					t.Fatalf("markers %v, want %v", got, marks)
				}
			}
			if !bytes.Equal(content(t, d), model) {
				t.Fatal("content before the last rollback is wrong")
			}
			for _, mark := range slices.Backward(marks) {
				must(t, d.Rollback(mark))
				if !bytes.Equal(content(t, d), copies[mark]) {
					t.Fatalf("rollback to %d is not the copy", mark)
				}
			}
		})
	}
}

func TestABlockIsLoggedOncePerMarker(t *testing.T) {
	d := mustOpen(t, filepath.Join(t.TempDir(), "disk"), 1<<20)
	block := bytes.Repeat([]byte{1}, 4096)
	_, err := d.WriteAt(bytes.Repeat([]byte{9}, 1<<20), 0)
	must(t, err)
	if d.Used() != 0 {
		t.Fatalf("%d bytes logged without a marker", d.Used())
	}
	must(t, d.Mark(1))
	empty := d.Used()
	for range 100 {
		_, err := d.WriteAt(block, 8192)
		must(t, err)
	}
	if got := d.Used() - empty; got != headerSize+4096 {
		t.Fatalf("a hundred writes of a block logged %d bytes", got)
	}
	_, err = d.WriteAt(bytes.Repeat(block, 4), 0) // one of the four is there
	must(t, err)
	if got := d.Used() - empty; got > 4*4096+4*headerSize {
		t.Fatalf("logged again: %d bytes", got)
	}
	must(t, d.Drop(^uint64(0)))
	if d.Used() != 0 || len(d.Marks()) != 0 {
		t.Fatalf("after Drop: %d bytes, markers %v", d.Used(), d.Marks())
	}
}

func TestHolesAreCheap(t *testing.T) {
	const size = 64 << 30
	d := mustOpen(t, filepath.Join(t.TempDir(), "disk"), size)
	must(t, d.Mark(1))
	must(t, d.Zero(0, size))
	_, err := d.WriteAt([]byte("x"), size-1)
	must(t, err)
	if d.Used() > 1<<10 {
		t.Fatalf("zeroing a hole logged %d bytes", d.Used())
	}
	must(t, d.Rollback(1))
	last := make([]byte, 1)
	_, err = d.ReadAt(last, size-1)
	if err != nil || last[0] != 0 {
		t.Fatalf("last byte %v, %v", last, err)
	}
}

func TestRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := mustOpen(t, path, 10000)
	must(t, d.Mark(5))
	for name, c := range map[string]struct{ err, want error }{
		"same marker":      {d.Mark(5), ErrMarker},
		"older marker":     {d.Mark(4), ErrMarker},
		"rollback nowhere": {d.Rollback(4), ErrMarker},
		"zero outside":     {d.Zero(9999, 2), ErrRange},
		"negative":         {d.Zero(-1, 2), ErrRange},
		"write outside":    {second(d.WriteAt(make([]byte, 2), 9999)), ErrRange},
		"offset overflows": {second(d.ReadAt(make([]byte, 2), 1<<63-1)), ErrRange},
		"open twice":       {second(Open(path, 10000)), ErrInUse},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenAgainstClosedAndResized(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := mustOpen(t, path, 10000)
	must(t, d.Close())
	if _, err := Open(path, 10001); !errors.Is(err, ErrSize) {
		t.Errorf("other size: %v", err)
	}
	if _, err := d.WriteAt([]byte{1}, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("write when closed: %v", err)
	}
	if err := d.Mark(1); !errors.Is(err, ErrClosed) {
		t.Errorf("mark when closed: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, ErrClosed) {
		t.Errorf("sync when closed: %v", err)
	}
}

// Every way to cut the newest segment off leaves a disk that rolls back, since
// the record that is cut is of a block that was not overwritten.
func TestTornTailIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	const size = 64 << 10
	d := mustOpen(t, path, size)
	before := bytes.Repeat([]byte{7}, size)
	_, err := d.WriteAt(before, 0)
	must(t, err)
	must(t, d.Mark(1))
	_, err = d.WriteAt([]byte("first"), 100)
	must(t, err)
	kept := d.Used()
	now := content(t, d)
	_, err = d.WriteAt([]byte("second"), 9000)
	must(t, err)
	must(t, d.Close())
	log, err := os.ReadFile(segmentPath(path+".undo", 1))
	must(t, err)
	for cut := kept; cut < int64(len(log)); cut += 97 {
		must(t, os.WriteFile(path, now, 0o600)) // the second write did not happen
		must(t, os.WriteFile(segmentPath(path+".undo", 1), log[:cut], 0o600))
		d := mustOpen(t, path, size)
		if d.Used() != kept {
			t.Fatalf("cut at %d: %d bytes used, want %d", cut, d.Used(), kept)
		}
		_, err = d.WriteAt([]byte("third"), 9000) // logs that block again
		must(t, err)
		must(t, d.Rollback(1))
		if !bytes.Equal(content(t, d), before) {
			t.Fatalf("cut at %d: rollback is not exact", cut)
		}
		must(t, d.Close())
	}
}

func TestDamageIsFoundBeforeAnythingChanges(t *testing.T) {
	const size = 64 << 10
	for name, at := range map[string]int64{"segment header": 9, "record header": headerSize + 9, "record data": 2*headerSize + 50, "magic": headerSize} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			d := mustOpen(t, path, size)
			_, err := d.WriteAt(bytes.Repeat([]byte{7}, size), 0)
			must(t, err)
			must(t, d.Mark(1))
			_, err = d.WriteAt([]byte("one"), 0)
			must(t, err)
			must(t, d.Mark(2))
			_, err = d.WriteAt([]byte("two"), 30000)
			must(t, err)
			now := content(t, d)
			must(t, d.Close())
			log, err := os.ReadFile(segmentPath(path+".undo", 1))
			must(t, err)
			log[at] ^= 0x40
			must(t, os.WriteFile(segmentPath(path+".undo", 1), log, 0o600))
			d = mustOpen(t, path, size)
			if err := d.Rollback(1); !errors.Is(err, ErrDamaged) {
				t.Fatalf("rollback over damage: %v", err)
			}
			if !bytes.Equal(content(t, d), now) {
				t.Fatal("the refused rollback changed the image")
			}
			must(t, d.Rollback(2))
			must(t, d.Close())
			must(t, Discard(path))
			if d = mustOpen(t, path, size); len(d.Marks()) != 0 {
				t.Fatal("markers after Discard")
			}
		})
	}
}

// A rollback that was cut off anywhere is finished by Open.
func TestCutOffRollbackIsFinished(t *testing.T) {
	const size = 256 << 10
	build := func(t *testing.T) (string, []byte) {
		random := rand.New(rand.NewPCG(1, 2))
		path := filepath.Join(t.TempDir(), "disk")
		d := mustOpen(t, path, size)
		model := make([]byte, size)
		var want []byte
		for mark := range uint64(4) {
			for range 10 {
				scribble(t, random, d, model)
			}
			must(t, d.Mark(mark+1))
			if mark == 1 {
				want = bytes.Clone(model)
			}
		}
		scribble(t, random, d, model)
		must(t, d.Close())
		return path, want
	}
	for undone := range 5 { // how many of the segments 4, 3, 2 were undone, then removed
		t.Run(fmt.Sprint(undone), func(t *testing.T) {
			path, want := build(t)
			d := mustOpen(t, path, size)
			must(t, d.writeIntent(filepath.Join(path+".undo", intentName), 2))
			for i := len(d.segments) - 1; i >= 1 && len(d.segments)-i <= undone; i-- {
				all, err := d.verify(d.segments[i])
				must(t, err)
				must(t, d.undo(d.segments[i], all))
			}
			if undone > 3 {
				must(t, d.segments[3].remove())
			}
			_ = d.Close()
			d = mustOpen(t, path, size)
			if !bytes.Equal(content(t, d), want) || !slices.Equal(d.Marks(), []uint64{1, 2}) {
				t.Fatalf("not at the marker; markers %v", d.Marks())
			}
		})
	}
}

func TestHash(t *testing.T) {
	d := mustOpen(t, filepath.Join(t.TempDir(), "disk"), 1<<20)
	zero, err := d.Hash(0, ChunkSize)
	must(t, err)
	if zero != sumOf(make([]byte, ChunkSize)) {
		t.Error("the known sum of zeroes is wrong")
	}
	p := bytes.Repeat([]byte("abcdefg"), 20000)
	_, err = d.WriteAt(p, 5)
	must(t, err)
	for _, length := range []int64{1, 4096, ChunkSize, ChunkSize + 1, 140000} {
		if got, err := d.Hash(5, length); err != nil || got != sumOf(p[:length]) {
			t.Errorf("hash of %d bytes: %x, %v", length, got, err)
		}
	}
}

func BenchmarkOverwrite(b *testing.B) {
	for _, size := range []int64{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			const disk = 256 << 20
			d := mustOpen(b, filepath.Join(b.TempDir(), "disk"), disk)
			p := bytes.Repeat([]byte{3}, int(size))
			for off := int64(0); off < disk; off += size {
				_, err := d.WriteAt(p, off)
				must(b, err)
			}
			b.SetBytes(size)
			off := int64(disk)
			for mark := uint64(1); b.Loop(); off += size {
				if off >= disk {
					must(b, d.Mark(mark))
					must(b, d.Drop(mark))
					off, mark = 0, mark+1
				}
				_, err := d.WriteAt(p, off)
				must(b, err)
			}
		})
	}
}
