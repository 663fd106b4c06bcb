package work

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// disk is a file in memory.
type disk struct{ content []byte }

func (d *disk) ReadAt(b []byte, at int64) (int, error) {
	if n := copy(b, d.content[at:]); n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return len(b), nil
}

func (d *disk) WriteAt(b []byte, at int64) (int, error) { return copy(d.content[at:], b), nil }

const testSlots = 16

func newDisk() *disk { return &disk{content: make([]byte, testSlots*RecordSize)} }

// boot starts a worker on disks, with 32 pages of memory.
func boot(t *testing.T, every int, disks ...*disk) *Worker {
	t.Helper()
	var logs []*Log
	for _, d := range disks {
		l, _, err := OpenLog("disk", d, testSlots, Aligned(PageSize))
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	token := NewToken()
	return NewWorker(token, NewMemory(token, Aligned(32*PageSize)), every, logs)
}

func steps(t *testing.T, w *Worker, n int) {
	t.Helper()
	for range n {
		w.Step(3, 5)
	}
	if w.Broken() != nil {
		t.Fatalf("broken without a cause: %v", w.Broken())
	}
}

func history(t *testing.T, d *disk) History {
	t.Helper()
	h, err := ReadHistory(d.content)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLogHoldsWhatWasDone(t *testing.T) {
	for _, every := range []int{1, 3} {
		a, b := newDisk(), newDisk()
		w := boot(t, every, a, b)
		sequence := uint64(0)
		for range 3 * testSlots {
			steps(t, w, every)
			sequence++
			h := history(t, a)
			if h.Last.Sequence != sequence || h.Last.Counter != sequence*uint64(every) || h.Last.Chain != w.chain {
				t.Fatalf("every %d: last record %+v, want number %d", every, h.Last, sequence)
			}
			if want := min(int(sequence), testSlots-1); h.Records != want {
				t.Fatalf("every %d: %d records after %d, want %d", every, h.Records, sequence, want)
			}
			if !bytes.Equal(a.content, b.content) {
				t.Fatal("the disks differ")
			}
		}
		if s := w.Status(); s.Disk.Records != sequence || s.Disk.Counter != s.Counter || s.Disk.Disks != 2 || s.Broken {
			t.Errorf("every %d: status %+v", every, s)
		}
	}
}

func TestBootGoesOnWithTheLog(t *testing.T) {
	d := newDisk()
	for n := range 5 {
		w := boot(t, 1, d)
		steps(t, w, 7)
		if s := w.Status(); s.Boots != uint32(n+1) || s.Counter != 7 || s.Disk.Records != uint64(7*(n+1)) {
			t.Errorf("boot %d: status %+v", n+1, s)
		}
		history(t, d)
	}
}

// TestMixedInstants puts a guest together from memory and disks of different
// instants: whatever the way, it notices at the next step.
func TestMixedInstants(t *testing.T) {
	tests := map[string]func(t *testing.T, w *Worker, a, b *disk){
		"disk older by one record": func(t *testing.T, w *Worker, a, b *disk) {
			was := slices.Clone(a.content)
			steps(t, w, 1)
			a.content = was
		},
		"disk newer by one record": func(t *testing.T, w *Worker, a, b *disk) {
			last, chain, counter := w.logs[0].last, w.chain, w.counter
			memory := *w.memory
			memory.bytes = slices.Clone(memory.bytes)
			steps(t, w, 1)
			*w.memory, w.chain, w.counter = memory, chain, counter
			w.logs[0].last, w.logs[1].last = last, last
			w.logs[0].before, w.logs[1].before = Record{}, Record{}
		},
		"second disk older": func(t *testing.T, w *Worker, a, b *disk) {
			was := slices.Clone(b.content)
			steps(t, w, 2)
			b.content = was
		},
		"disk older but for the write under way": func(t *testing.T, w *Worker, a, b *disk) {
			was := slices.Clone(a.content)
			steps(t, w, 2)
			at := int(slot(w.logs[0].last.Sequence, testSlots)) * RecordSize
			copy(was[at:at+2*RecordSize], a.content[at:])
			a.content = was
		},
		"disks swapped out for other ones": func(t *testing.T, w *Worker, a, b *disk) {
			other := newDisk()
			steps(t, boot(t, 1, other), 20)
			a.content = other.content
		},
		"one bit of the last record": func(t *testing.T, w *Worker, a, b *disk) {
			a.content[int(slot(w.logs[0].last.Sequence, testSlots))*RecordSize+300] ^= 1
		},
		"something after the last record": func(t *testing.T, w *Worker, a, b *disk) {
			b.content[int(slot(w.logs[0].last.Sequence+1, testSlots))*RecordSize+511] = 1
		},
		"one page of memory older": func(t *testing.T, w *Worker, a, b *disk) {
			page := w.memory.written % w.memory.pages // the next one to be rewritten
			was := slices.Clone(w.memory.page(page))
			steps(t, w, 1)
			copy(w.memory.page(page), was)
		},
		"one bit of memory": func(t *testing.T, w *Worker, a, b *disk) { w.memory.bytes[17*PageSize+99] ^= 4 },
		"chain older":       func(t *testing.T, w *Worker, a, b *disk) { w.chain[3] ^= 1 },
	}
	for name, mix := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := newDisk(), newDisk()
			w := boot(t, 1, a, b)
			steps(t, w, 21)
			mix(t, w, a, b)
			for range 7 { // memory is swept in seven steps
				w.Step(3, 5)
			}
			if w.Broken() == nil && name != "chain older" {
				t.Fatal("not noticed")
			}
			if name == "chain older" { // only the record on the disk tells
				if _, err := ReadHistory(a.content); err == nil || !strings.Contains(err.Error(), "chain is broken") {
					t.Fatalf("not noticed: %v", err)
				}
				return
			}
			reason, counter := w.Status().Reason, w.Status().Counter
			w.Step(3, 5)
			if s := w.Status(); !s.Broken || s.Reason != reason || s.Counter != counter+1 {
				t.Errorf("must stay broken and count on: %+v", s)
			}
		})
	}
}

func TestHistoryIsRefused(t *testing.T) {
	at := func(sequence int) int { return (sequence - 1) % testSlots * RecordSize }
	tests := map[string]struct {
		steps int
		spoil func(log []byte)
		says  string
	}{
		"flipped bit":      {9, func(log []byte) { log[at(4)+200] ^= 1 }, "checksum"},
		"bad magic":        {9, func(log []byte) { log[at(4)] ^= 1 }, "not a record"},
		"missing in early": {9, func(log []byte) { clear(log[at(4):at(5)]) }, "lead to it"},
		"missing first":    {9, func(log []byte) { clear(log[at(1):at(2)]) }, "missing"},
		"missing later":    {40, func(log []byte) { clear(log[at(36):at(37)]) }, "lead to it"},
		"wrong slot":       {5, func(log []byte) { copy(log[at(9):], log[at(5):at(6)]) }, "slot"},
		"rewritten record": {9, func(log []byte) {
			r, _ := ParseRecord(log[at(5):at(6)])
			r.Chain[0]++
			r.Append(log[at(5):at(5)])
		}, "own link"},
		"forged chain": {9, func(log []byte) {
			r, _ := ParseRecord(log[at(9):at(10)])
			r.Previous[20]++
			r.Sample = ExpectedSample(r.Token, r.Previous, uint64(r.Pages), r.Written)
			r.Chain = Link(r.Previous, r.Counter, r.Sample)
			r.Append(log[at(9):at(9)])
		}, "chain is broken"},
		"memory of another instant": {9, func(log []byte) {
			r, _ := ParseRecord(log[at(9):at(10)])
			r.Written -= 32
			r.Append(log[at(9):at(9)])
		}, "not of this instant"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			steps(t, boot(t, 1, d), test.steps)
			test.spoil(d.content)
			if _, err := ReadHistory(d.content); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error with %q", err, test.says)
			}
			if _, _, err := OpenLog("disk", d, testSlots, Aligned(PageSize)); err == nil {
				t.Error("a guest would boot from it")
			}
		})
	}
}

// TestCutOffWrite is a power cut inside the two sectors of an append: either
// may have landed, and the next boot goes on.
func TestCutOffWrite(t *testing.T) {
	for _, count := range []int{5, testSlots - 1, testSlots, testSlots + 5, 2 * testSlots} {
		for _, landed := range []string{"record", "zero"} {
			d := newDisk()
			w := boot(t, 1, d)
			steps(t, w, count)
			was := slices.Clone(d.content)
			steps(t, w, 1)
			sector := int(slot(uint64(count+1), testSlots)) * RecordSize
			if landed == "zero" {
				sector = int(slot(uint64(count+2), testSlots)) * RecordSize
			}
			copy(was[sector:][:RecordSize], d.content[sector:])
			d.content = was
			steps(t, boot(t, 1, d), 2*testSlots)
			history(t, d)
		}
	}
}

func TestSecondDiskCatchesUp(t *testing.T) {
	a, b := newDisk(), newDisk()
	w := boot(t, 1, a, b)
	steps(t, w, 9)
	was := slices.Clone(b.content)
	steps(t, w, 1)
	b.content = was
	steps(t, boot(t, 1, a, b), 1)

	steps(t, boot(t, 1, a), 2)
	if w := boot(t, 1, a, b); w.Broken() == nil {
		t.Error("a second disk two records behind was accepted")
	}
	if w := boot(t, 1, a, newDisk()); w.Broken() == nil {
		t.Error("an empty second disk was accepted")
	}
}

func TestGeneration(t *testing.T) {
	const pages = 7
	rewrites := make([]uint64, pages)
	for written := range uint64(40) {
		for page := range uint64(pages) {
			if have := generation(page, pages, written); have != rewrites[page] {
				t.Fatalf("page %d after %d: generation %d, want %d", page, written, have, rewrites[page])
			}
		}
		rewrites[written%pages]++
	}
}

func FuzzParseRecord(f *testing.F) {
	token := NewToken()
	m := NewMemory(token, Aligned(PageSize))
	r := Record{Sequence: 1, Boot: 1, Every: 1, Counter: 1, Token: token, Pages: 1, Sample: m.Sample(Chain{})}
	r.Chain = Link(r.Previous, 1, r.Sample)
	f.Add(r.Append(nil))
	f.Add(make([]byte, RecordSize))
	f.Fuzz(func(t *testing.T, sector []byte) {
		r, err := ParseRecord(sector)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Fatal(err)
			}
			return
		}
		_ = r.Check()
		again, err := ParseRecord(r.Append(nil))
		if err != nil || again != r {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
