package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxDepth is far above any real tree (at least two keys on a page).
const maxDepth = 64

// walker visits every page in use once.
type walker struct {
	r     io.ReaderAt
	pages uint64
	seen  []bool
}

// claim marks a page as in use, by the first one who says so.
func (w *walker) claim(id uint64) error {
	switch {
	case id < 2 || id >= w.pages:
		return fmt.Errorf("page %d does not exist", id)
	case w.seen[id]:
		return fmt.Errorf("page %d is used twice", id)
	}
	w.seen[id] = true
	return nil
}

// load claims and reads a page with its overflow pages.
func (w *walker) load(id uint64) (page []byte, flags, count int, err error) {
	if err := w.claim(id); err != nil {
		return nil, 0, 0, err
	}
	var header [headerLen]byte
	if _, err := w.r.ReadAt(header[:], int64(id)*pageSize); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	if said := order.Uint64(header[:]); said != id {
		return nil, 0, 0, fmt.Errorf("page %d says it is page %d", id, said)
	}
	overflow := uint64(order.Uint32(header[12:]))
	for next := id + 1; next <= id+overflow; next++ {
		if err := w.claim(next); err != nil {
			return nil, 0, 0, fmt.Errorf("overflow of page %d: %w", id, err)
		}
	}
	page = make([]byte, (overflow+1)*pageSize)
	if _, err := w.r.ReadAt(page, int64(id)*pageSize); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	return page, int(order.Uint16(header[8:])), int(order.Uint16(header[10:])), nil
}

// tree checks the page and all below it: keys rise, and are in [low, high)
// where these are not nil.
func (w *walker) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is too deep", id)
	}
	page, flags, count, err := w.load(id)
	if err != nil {
		return err
	}
	switch flags {
	case flagBranch:
		err = w.branch(page, count, low, high, depth)
	case flagLeaf:
		err = w.leaf(page, count, low, high, depth)
	default:
		err = fmt.Errorf("wrong type %#x in a tree", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *walker) branch(page []byte, count int, low, high []byte, depth int) error {
	if count == 0 {
		return errors.New("a branch without children")
	}
	key, child, err := branchElement(page, count, 0)
	for i := range count {
		if err != nil {
			return err
		}
		if err := inOrder(key, low, high, i > 0); err != nil {
			return err
		}
		end, nextKey, nextChild := high, []byte(nil), uint64(0)
		if i+1 < count {
			nextKey, nextChild, err = branchElement(page, count, i+1)
			end = nextKey
		}
		if err := w.tree(child, key, end, depth+1); err != nil {
			return err
		}
		low, key, child = key, nextKey, nextChild
	}
	return nil
}

func branchElement(page []byte, count, i int) (key []byte, child uint64, err error) {
	at, err := element(page, count, i)
	if err != nil {
		return nil, 0, err
	}
	key, err = span(page, count, at, order.Uint32(page[at:]), order.Uint32(page[at+4:]))
	return key, order.Uint64(page[at+8:]), err
}

// leaf checks a leaf page, stand-alone or inline (depth < 0: no buckets in it).
func (w *walker) leaf(page []byte, count int, low, high []byte, depth int) error {
	for i := range count {
		at, err := element(page, count, i)
		if err != nil {
			return err
		}
		flags, pos := order.Uint32(page[at:]), order.Uint32(page[at+4:])
		keyLen, valueLen := order.Uint32(page[at+8:]), order.Uint32(page[at+12:])
		key, err := span(page, count, at, pos, keyLen)
		if err != nil {
			return err
		}
		value, err := span(page, count, at+int(keyLen), pos, valueLen)
		if err != nil {
			return err
		}
		if err := inOrder(key, low, high, i > 0); err != nil {
			return err
		}
		low = key
		if flags == 0 {
			continue
		}
		if flags != 1 || depth < 0 {
			return fmt.Errorf("an entry of unknown type %#x", flags)
		}
		if err := w.bucket(value, depth); err != nil {
			return fmt.Errorf("bucket %q: %w", key, err)
		}
	}
	return nil
}

// bucket checks a bucket: the number of its first page, or that page inline.
func (w *walker) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return fmt.Errorf("%d bytes", len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return w.tree(root, nil, nil, depth+1)
	}
	page := value[16:]
	if len(page) < headerLen || order.Uint16(page[8:]) != flagLeaf {
		return errors.New("its inline page is not a leaf")
	}
	return w.leaf(page, int(order.Uint16(page[10:])), nil, nil, -1)
}

// freelist checks that no free page is also in use.
func (w *walker) freelist(id uint64) error {
	page, flags, count, err := w.load(id)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	if flags != flagFreelist {
		return fmt.Errorf("page %d: wrong type %#x for the list of free pages", id, flags)
	}
	ids := page[headerLen:]
	n := uint64(count)
	if count == 0xFFFF { // then the first entry is the count
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return fmt.Errorf("page %d: %d free pages do not fit in the list", id, n)
	}
	for i := range n {
		if err := w.claim(order.Uint64(ids[8*i:])); err != nil {
			return fmt.Errorf("list of free pages: %w", err)
		}
	}
	return nil
}

// element returns the offset of the header of entry i.
func element(page []byte, count, i int) (int, error) {
	if headerLen+elementLen*count > len(page) {
		return 0, fmt.Errorf("%d entries do not fit", count)
	}
	return headerLen + elementLen*i, nil
}

// span returns length bytes, pos after at, if they are where data may be.
func span(page []byte, count, at int, pos, length uint32) ([]byte, error) {
	start := int64(at) + int64(pos)
	end := start + int64(length)
	if start < int64(headerLen+elementLen*count) || end > int64(len(page)) {
		return nil, fmt.Errorf("an entry is outside (%d to %d)", start, end)
	}
	return page[start:end], nil
}

func inOrder(key, low, high []byte, above bool) error {
	cmp := bytes.Compare(key, low)
	if cmp < 0 || above && cmp == 0 {
		return fmt.Errorf("key %q is out of order", key)
	}
	if high != nil && bytes.Compare(key, high) >= 0 {
		return fmt.Errorf("key %q belongs on another page", key)
	}
	return nil
}
