package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

const sector = 512

// ledger knows of every sector of a guest's disks what was ever written to it,
// in order: a number each, which its content shows; 0 is zeroes.
type ledger struct {
	mu    sync.Mutex
	disks map[string]*ledgerDisk
	last  uint64
	marks map[uint64]map[string]ledgerMark

	stories map[int]story // see legal
	tick    int
}

type ledgerDisk struct {
	versions [][]uint64 // of each sector, oldest first
	acked    []int      // index of the newest acknowledged one
	promised []int      // index of the newest one that was said to be durable
}

// ledgerMark is a disk at a marker.
type ledgerMark struct {
	ids   []uint64
	acked []int
}

func newLedger(disks []DiskImage) *ledger {
	l := &ledger{disks: map[string]*ledgerDisk{}, marks: map[uint64]map[string]ledgerMark{}}
	for _, d := range disks {
		sectors := int(d.Size / sector)
		disk := &ledgerDisk{acked: make([]int, sectors), promised: make([]int, sectors)}
		for range sectors {
			disk.versions = append(disk.versions, []uint64{0})
		}
		l.disks[d.Name] = disk
	}
	return l
}

// ledgerWrite is one write: count sectors from first.
type ledgerWrite struct {
	disk         string
	first, count int
	id           uint64
}

// begin notes a write that is on its way; zero writes zeroes.
func (l *ledger) begin(disk string, first, count int, zero bool) ledgerWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := ledgerWrite{disk: disk, first: first, count: count}
	if !zero {
		l.last++
		w.id = l.last
	}
	d := l.disks[disk]
	for i := first; i < first+count; i++ {
		d.versions[i] = append(d.versions[i], w.id)
	}
	return w
}

// some is a random write.
func (l *ledger) some(random *rand.Rand) ledgerWrite {
	name := []string{"d0", "d1"}[random.IntN(2)]
	sectors := len(l.disks[name].versions)
	count := 1 + random.IntN([]int{1, 8, 40}[random.IntN(3)])
	return l.begin(name, random.IntN(sectors-count+1), count, random.IntN(6) == 0)
}

// data is what a write writes, nil for zeroes.
func (w ledgerWrite) data() []byte {
	if w.id == 0 {
		return nil
	}
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, w.id), w.count*sector/8)
}

// done notes that a write was acknowledged. Writes to one sector do not overlap.
func (l *ledger) done(w ledgerWrite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.disks[w.disk]
	for i := w.first; i < w.first+w.count; i++ {
		d.acked[i] = len(d.versions[i]) - 1
	}
}

// mark notes what the disks are at a marker; nothing is on its way.
func (l *ledger) mark(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark := map[string]ledgerMark{}
	for name, d := range l.disks {
		m := ledgerMark{acked: slices.Clone(d.acked)}
		for _, versions := range d.versions {
			m.ids = append(m.ids, versions[len(versions)-1])
		}
		mark[name] = m
	}
	l.marks[sequence] = mark
}

// promise notes that everything acknowledged before a marker is durable; of
// marker 0, everything acknowledged.
func (l *ledger) promise(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, d := range l.disks {
		acked := d.acked
		if sequence != 0 {
			acked = l.marks[sequence][name].acked
		}
		for i, at := range acked {
			d.promised[i] = max(d.promised[i], at)
		}
	}
}

// rule says what a disk's sector may be.
type rule func(l *ledger, disk string, at int) []uint64

// atMark: what it was at a marker.
func atMark(sequence uint64) rule {
	return func(l *ledger, disk string, at int) []uint64 { return l.marks[sequence][disk].ids[at : at+1] }
}

// nothingAcknowledgedLost: the last acknowledged content or what was on its way.
func nothingAcknowledgedLost(l *ledger, disk string, at int) []uint64 {
	d := l.disks[disk]
	return d.versions[at][d.acked[at]:]
}

// nothingDurableLost: the last durable content or anything written since.
func nothingDurableLost(l *ledger, disk string, at int) []uint64 {
	d := l.disks[disk]
	return d.versions[at][d.promised[at]:]
}

// follow says where the images break a rule.
func (l *ledger) follow(images []DiskImage, rule rule) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, image := range images {
		content, err := os.ReadFile(image.Path)
		if err != nil {
			return err
		}
		if int64(len(content)) != image.Size {
			return fmt.Errorf("%s has %d bytes, not %d", image.Name, len(content), image.Size)
		}
		for at := range len(content) / sector {
			raw := content[at*sector : (at+1)*sector]
			id := binary.LittleEndian.Uint64(raw)
			if want := bytes.Repeat(raw[:8], sector/8); !bytes.Equal(raw, want) {
				return fmt.Errorf("sector %d of %s is of more than one write", at, image.Name)
			}
			if may := rule(l, image.Name, at); !slices.Contains(may, id) {
				return fmt.Errorf("sector %d of %s is of write %d, it may be of %v", at, image.Name, id, may)
			}
		}
	}
	return nil
}
