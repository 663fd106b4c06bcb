package replicator

import "math/bits"

const (
	// batchSize is the unit of work of the compare in bytes: at most the chunks of
	// one HashRequest.
	batchSize = 1 << 20
	// chunksPerBatch is how many sums a batch has at most. It divides 64, so that a
	// batch lies in one word.
	chunksPerBatch = batchSize / ChunkSize
)

// work is what may differ between the live disks and the replica: a bit per chunk
// of each disk. It outlives links; see the package comment. Guarded by
// Replicator.mu.
type work struct {
	disks  []workDisk
	todo   int       // chunks to be taken
	active int       // batches being examined
	left   int64     // bytes that may differ: to be taken, or being examined
	file   *dirtyMap // nil: not kept
}

type workDisk struct {
	size  int64
	todo  []uint64
	dirty []uint64 // todo, and what is being examined
	next  int      // word to look at first
}

// newWork has nothing to do.
func newWork(disks []Disk) work {
	w := work{disks: make([]workDisk, len(disks))}
	for i, d := range disks {
		words := wordsOf(d.Size)
		w.disks[i] = workDisk{size: d.Size, todo: make([]uint64, words), dirty: make([]uint64, words)}
	}
	return w
}

func chunksOf(size int64) int64 { return (size + ChunkSize - 1) / ChunkSize }
func wordsOf(size int64) int    { return int((chunksOf(size) + 63) / 64) }

// mask has the bits of a word that stand for chunks.
func (d *workDisk) mask(word int) uint64 {
	if over := int64(word+1)*64 - chunksOf(d.size); over > 0 {
		return ^uint64(0) >> over
	}
	return ^uint64(0)
}

// bytesOf is how many bytes the chunks of a word have.
func (d *workDisk) bytesOf(word int, set uint64) int64 {
	sum := int64(bits.OnesCount64(set)) * ChunkSize
	if last := chunksOf(d.size) - 1; last/64 == int64(word) && set&(1<<(last%64)) != 0 {
		sum -= (last+1)*ChunkSize - d.size
	}
	return sum
}

// add puts the chunks of a range of bytes, not empty, into the work. It returns
// how many bytes could not differ before. An error means that this is not known
// to a process after this one, and that such a process would not know it.
func (w *work) add(disk int, off, length int64) (added int64, err error) {
	first, last := off/ChunkSize, (off+length-1)/ChunkSize
	from, to := int(first/64), int(last/64)+1
	return w.or(disk, from, to, func(word int) uint64 {
		set := ^uint64(0)
		if word == from {
			set &= ^uint64(0) << (first % 64)
		}
		if word == to-1 {
			set &= ^uint64(0) >> (63 - last%64)
		}
		return set
	})
}

// or adds the bits of words [from, to) of a disk.
func (w *work) or(disk, from, to int, bitsOf func(word int) uint64) (added int64, err error) {
	d := &w.disks[disk]
	for word := from; word < to; word++ {
		set := bitsOf(word) & d.mask(word)
		if fresh := set &^ d.todo[word]; fresh != 0 {
			d.todo[word] |= fresh
			w.todo += bits.OnesCount64(fresh)
			d.next = min(d.next, word)
		}
		if fresh := set &^ d.dirty[word]; fresh != 0 {
			d.dirty[word] |= fresh
			added += d.bytesOf(word, fresh)
		}
	}
	w.left += added
	if added == 0 && !w.file.stays() {
		return 0, nil
	}
	return added, w.file.keep(disk, d.dirty, from, to)
}

// addAll puts everything into the work.
func (w *work) addAll() (err error) {
	for i := range w.disks {
		_, failed := w.or(i, 0, len(w.disks[i].todo), func(int) uint64 { return ^uint64(0) })
		if failed != nil {
			err = failed
		}
	}
	return err
}

// take takes a batch, chunks in a row, out of the work; it is active until done.
func (w *work) take() (disk int, off, length int64, ok bool) {
	if w.todo == 0 {
		return 0, 0, 0, false
	}
	for i := range w.disks {
		d := &w.disks[i]
		for ; d.next < len(d.todo); d.next++ {
			word := d.todo[d.next]
			if word == 0 {
				continue
			}
			bit := bits.TrailingZeros64(word)
			run := min(bits.TrailingZeros64(^(word >> bit)), chunksPerBatch-bit%chunksPerBatch)
			d.todo[d.next] &^= (1<<run - 1) << bit
			w.todo -= run
			w.active++
			off = (int64(d.next)*64 + int64(bit)) * ChunkSize
			return i, off, min(int64(run)*ChunkSize, d.size-off), true
		}
	}
	return 0, 0, 0, false
}

// done ends a batch that is equal now. What was put into the work again
// meanwhile, or is in another batch being examined, stays.
func (w *work) done(disk int, off, length int64, others []span) {
	w.active--
	d := &w.disks[disk]
	word := int(off / ChunkSize / 64)
	var equal uint64
	for at := off; at < off+length; at += ChunkSize {
		chunk := at / ChunkSize
		examined := false
		for _, o := range others {
			examined = examined || at < o.to && at+ChunkSize > o.from
		}
		if !examined && d.todo[word]&(1<<(chunk%64)) == 0 {
			equal |= 1 << (chunk % 64)
		}
	}
	equal &= d.dirty[word]
	d.dirty[word] &^= equal
	w.left -= d.bytesOf(word, equal)
	// A map that still has them costs a process after this one some work only.
	_ = w.file.keep(disk, d.dirty, word, word+1)
}

// failed puts a batch back.
func (w *work) failed(disk int, off, length int64) {
	w.active--
	_, _ = w.add(disk, off, length) // all of it is in the map still
}

func (w *work) finished() bool { return w.todo == 0 && w.active == 0 }
