package memory

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrBusy means that two uses of a shadow would overlap: a Scan changes what
// an Encode is still reading. The caller has to wait for the first.
var ErrBusy = errors.New("shadow is in use")

// Shadow is a private copy of a guest's RAM: what the peer has, plus the pages
// of the Delta. It starts as zeros and takes memory only for blocks that the
// guest has touched.
type Shadow struct {
	data    []byte
	present []bool // per block: the live image had memory there once
	held    atomic.Int64
	using   atomic.Bool
}

// NewShadow returns a shadow of size bytes, all zeros.
func NewShadow(size int64) (*Shadow, error) {
	if size <= 0 || size%PageSize != 0 {
		return nil, fmt.Errorf("shadow of %d bytes is not a whole number of pages: %w", size, ErrSize)
	}
	// Private and anonymous, because looking at an untouched page of such a
	// mapping costs no memory; with a shared one it does.
	data, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map a shadow of %d bytes: %w", size, err)
	}
	blocks := (size + BlockSize - 1) / BlockSize
	return &Shadow{data: data, present: make([]bool, blocks)}, nil
}

// Pages is the number of pages.
func (s *Shadow) Pages() uint64 { return uint64(len(s.data)) / PageSize }

// Size is the number of bytes.
func (s *Shadow) Size() int64 { return int64(len(s.data)) }

// Held is how many bytes of memory it takes at most. It may be called at any time.
func (s *Shadow) Held() int64 { return s.held.Load() }

// MarkAll adds to delta every page that may be other than zero: what a full
// image consists of, for a peer that starts from zeros. It says how many bytes
// those take that are.
func (s *Shadow) MarkAll(delta *Delta) (taken int64, err error) {
	if err := s.acquire(); err != nil {
		return 0, err
	}
	defer s.release()
	if delta.pages != s.Pages() {
		return 0, fmt.Errorf("mark %d pages in a delta of %d: %w", s.Pages(), delta.pages, ErrSize)
	}
	for block, present := range s.present {
		if !present {
			continue
		}
		all := s.mask(uint64(block))
		delta.words[block] |= all
		for left := all; left != 0; left &= left - 1 {
			if page := s.page(uint64(block)*BlockPages + uint64(bits.TrailingZeros64(left))); !bytes.Equal(page, zeroPage[:]) {
				taken += PageSize
			}
		}
	}
	return taken, nil
}

// mask has a bit for each page of a block; the last block may be short.
func (s *Shadow) mask(block uint64) uint64 {
	if left := s.Pages() - block*BlockPages; left < BlockPages {
		return 1<<left - 1
	}
	return ^uint64(0)
}

// page is the shadow's copy of one page. The caller holds the shadow.
func (s *Shadow) page(index uint64) []byte {
	return s.data[index*PageSize : (index+1)*PageSize]
}

// ReadAt copies from the shadow, for tests and audits.
func (s *Shadow) ReadAt(p []byte, off int64) (int, error) {
	if err := s.acquire(); err != nil {
		return 0, err
	}
	defer s.release()
	if off < 0 || off > s.Size() || int64(len(p)) > s.Size()-off {
		return 0, fmt.Errorf("read %d bytes at %d of %d: %w", len(p), off, s.Size(), ErrBounds)
	}
	return copy(p, s.data[off:]), nil
}

// Clear gives the memory back and begins with zeros again.
func (s *Shadow) Clear() error {
	if err := s.acquire(); err != nil {
		return err
	}
	defer s.release()
	if err := unix.Madvise(s.data, unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("clear a shadow of %d bytes: %w", len(s.data), err)
	}
	clear(s.present)
	s.held.Store(0)
	return nil
}

// Close gives the memory back. No Scan or Encode may be under way.
func (s *Shadow) Close() error {
	if err := s.acquire(); err != nil {
		return err
	}
	err := unix.Munmap(s.data)
	s.data, s.present = nil, nil
	return err
}

func (s *Shadow) acquire() error {
	if !s.using.CompareAndSwap(false, true) {
		return ErrBusy
	}
	return nil
}

func (s *Shadow) release() { s.using.Store(false) }
