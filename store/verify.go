package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt maps its file and follows the page numbers and offsets in it without
// looking: a damaged one is a memory fault or an endless recursion that takes
// the process down. verify walks the same structure with plain reads and
// checks every number before it is used. It covers what could crash or mislead
// bbolt; pages that are merely lost are left to Check.

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaLen     = 64 // of the fields after the page header
	headerLen   = 16
	elementLen  = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
)

var order = binary.NativeEndian // bbolt stores its pages as they are in memory

// meta is the valid meta page with the highest transaction number.
type meta struct {
	slot         int
	pageSize     uint32
	root         uint64
	freelist     uint64
	pages        uint64 // first page never used
	txid         uint64
	otherDamaged bool // the other meta page is not valid
}

func verifyFile(f *os.File) (meta, error) {
	info, err := f.Stat()
	if err != nil {
		return meta{}, err
	}
	return verify(f, info.Size())
}

func verify(r io.ReaderAt, size int64) (meta, error) {
	m, err := readMeta(r, size)
	if err != nil {
		return meta{}, err
	}
	if m.pageSize != pageSize {
		return meta{}, fmt.Errorf("its page size is %d, not %d", m.pageSize, pageSize)
	}
	if m.pages < 4 || m.pages > uint64(size)/pageSize {
		return meta{}, fmt.Errorf("the file is cut off: %d bytes, %d pages of %d are in use", size, m.pages, pageSize)
	}
	w := &walker{r: r, pages: m.pages, seen: make([]bool, m.pages)}
	if err := w.tree(m.root, nil, nil, 0); err != nil {
		return meta{}, err
	}
	return m, w.freelist(m.freelist)
}

func readMeta(r io.ReaderAt, size int64) (meta, error) {
	if size == 0 {
		return meta{}, errors.New("the file is empty")
	}
	if size < 2*pageSize {
		return meta{}, fmt.Errorf("the file is cut off: %d bytes", size)
	}
	var best meta
	var bad []error
	for slot := range 2 {
		m, err := parseMeta(r, slot)
		if err != nil {
			bad = append(bad, fmt.Errorf("meta page %d: %w", slot, err))
		} else if len(bad) == slot || m.txid > best.txid {
			best = m
		}
	}
	if len(bad) == 2 {
		return meta{}, fmt.Errorf("neither meta page is valid: %w", errors.Join(bad...))
	}
	best.otherDamaged = len(bad) == 1
	return best, nil
}

// parseMeta accepts what bbolt accepts, no more and no less: both must choose
// the same of the two meta pages.
func parseMeta(r io.ReaderAt, slot int) (meta, error) {
	page := make([]byte, headerLen+metaLen)
	if _, err := r.ReadAt(page, int64(slot)*pageSize); err != nil {
		return meta{}, err
	}
	b := page[headerLen:]
	sum := fnv.New64a()
	sum.Write(b[:metaLen-8])
	switch {
	case order.Uint32(b) != boltMagic:
		return meta{}, errors.New("not a meta page")
	case order.Uint32(b[4:]) != boltVersion:
		return meta{}, fmt.Errorf("version %d", order.Uint32(b[4:]))
	case order.Uint64(b[metaLen-8:]) != sum.Sum64():
		return meta{}, errors.New("wrong checksum")
	}
	return meta{
		slot:     slot,
		pageSize: order.Uint32(b[8:]),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}, nil
}
