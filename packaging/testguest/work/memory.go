package work

import (
	"encoding/binary"
	"fmt"
)

// PageSize is the size of a page of guest memory.
const PageSize = 4096

// Memory is a buffer whose pages are rewritten in turn. What a page must hold
// follows from the token, its number and the count of pages written so far, so
// a page of another instant is noticed.
type Memory struct {
	token   Token
	bytes   []byte
	pages   uint64
	written uint64 // pages rewritten since the start
	next    uint64 // page the sweep checks next
}

// NewMemory fills bytes, whole pages and at least one, with their first content.
func NewMemory(token Token, bytes []byte) *Memory {
	m := &Memory{token: token, bytes: bytes, pages: uint64(len(bytes) / PageSize)}
	for page := range m.pages {
		fill(m.page(page), token, page, 0)
	}
	return m
}

// Dirty rewrites the next n pages, each checked before it is overwritten.
func (m *Memory) Dirty(n int) error {
	for range n {
		page := m.written % m.pages
		if err := m.check(page); err != nil {
			return err
		}
		fill(m.page(page), m.token, page, generation(page, m.pages, m.written)+1)
		m.written++
	}
	return nil
}

// Sweep checks the next n pages, so that all are checked now and then.
func (m *Memory) Sweep(n int) error {
	for range n {
		if err := m.check(m.next); err != nil {
			return err
		}
		m.next = (m.next + 1) % m.pages
	}
	return nil
}

// Sample is the piece of memory that the next link holds.
func (m *Memory) Sample(previous Chain) Sample {
	page, offset := place(previous, m.pages)
	return Sample(m.page(page)[offset:])
}

func (m *Memory) page(page uint64) []byte {
	return m.bytes[page*PageSize:][:PageSize]
}

func (m *Memory) check(page uint64) error {
	age := generation(page, m.pages, m.written)
	seed := seed(m.token, page, age)
	bytes := m.page(page)
	for i := 0; i < PageSize; i += 8 {
		if have, want := binary.LittleEndian.Uint64(bytes[i:]), word(seed, i); have != want {
			return fmt.Errorf("memory page %d, byte %d: holds %016x, should hold %016x (rewrite %d of the page)", page, i, have, want, age)
		}
	}
	return nil
}

// ExpectedSample is what Sample must have given after written pages.
func ExpectedSample(token Token, previous Chain, pages, written uint64) Sample {
	var s Sample
	page, offset := place(previous, pages)
	seed := seed(token, page, generation(page, pages, written))
	for i := 0; i < len(s); i += 8 {
		binary.LittleEndian.PutUint64(s[i:], word(seed, offset+i))
	}
	return s
}

// place is where the sample of the next link is taken: unforeseeable, 32 bytes
// on an 8-byte boundary.
func place(c Chain, pages uint64) (page uint64, offset int) {
	page = binary.LittleEndian.Uint64(c[:]) % pages
	offset = int(binary.LittleEndian.Uint64(c[8:]) % (PageSize / 32) * 32)
	return page, offset
}

// generation is how often a page was rewritten when written pages were, in turn.
func generation(page, pages, written uint64) uint64 {
	return (written + pages - 1 - page) / pages
}

func fill(bytes []byte, token Token, page, generation uint64) {
	seed := seed(token, page, generation)
	for i := 0; i < PageSize; i += 8 {
		binary.LittleEndian.PutUint64(bytes[i:], word(seed, i))
	}
}

func seed(token Token, page, generation uint64) uint64 {
	s := mix(binary.LittleEndian.Uint64(token[:]) + page)
	return mix(s^binary.LittleEndian.Uint64(token[8:])) ^ mix(generation)
}

func word(seed uint64, offset int) uint64 { return mix(seed + uint64(offset)) }

// mix spreads its input over 64 bits (splitmix64): cheap even in a guest whose
// processor is translated.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
