package replicator

import "math/bits"

// batchSize is the unit of work of the compare in bytes: the chunks of one
// HashRequest.
const batchSize = 1 << 20

// work is what the compare has to do: a bit per batch of each disk, and those
// being examined. Guarded by Replicator.mu.
type work struct {
	disks  []workDisk
	todo   int // bits set
	active int // batches being examined
	all    int // batches there are
}

type workDisk struct {
	size int64
	bits []uint64
	next int // word to look at first
}

func newWork(disks []Disk) work {
	w := work{disks: make([]workDisk, len(disks))}
	for i, d := range disks {
		batches := int((d.Size + batchSize - 1) / batchSize)
		w.disks[i] = workDisk{size: d.Size, bits: make([]uint64, (batches+63)/64)}
		w.all += batches
	}
	return w
}

// add puts the batches of a range of bytes, not empty, into the work.
func (w *work) add(disk int, off, length int64) {
	d := &w.disks[disk]
	for at := off / batchSize; at <= (off+length-1)/batchSize; at++ {
		if d.bits[at/64]&(1<<(at%64)) == 0 {
			d.bits[at/64] |= 1 << (at % 64)
			w.todo++
			d.next = min(d.next, int(at/64))
		}
	}
}

func (w *work) addAll() {
	for i := range w.disks {
		w.add(i, 0, w.disks[i].size)
	}
}

// take takes a batch out of the work; it is active until done.
func (w *work) take() (disk int, off, length int64, ok bool) {
	if w.todo == 0 {
		return 0, 0, 0, false
	}
	for i := range w.disks {
		d := &w.disks[i]
		for ; d.next < len(d.bits); d.next++ {
			if word := d.bits[d.next]; word != 0 {
				bit := bits.TrailingZeros64(word)
				d.bits[d.next] &^= 1 << bit
				w.todo--
				w.active++
				off = (int64(d.next)*64 + int64(bit)) * batchSize
				return i, off, min(batchSize, d.size-off), true
			}
		}
	}
	return 0, 0, 0, false
}

func (w *work) done() { w.active-- }

func (w *work) finished() bool { return w.todo == 0 && w.active == 0 }

// compared is how many bytes are done, to the batch.
func (w *work) compared() int64 {
	if w.finished() {
		var total int64
		for _, d := range w.disks {
			total += d.size
		}
		return total
	}
	return int64(w.all-w.todo-w.active) * batchSize
}
