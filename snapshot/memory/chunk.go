package memory

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// A chunk, little-endian:
//
//	u64 xxhash64 of all that follows
//	u8  version, u8 flags (1: payload is zstd), u16 zero
//	u32 number of runs, u32 payload length as stored, u32 payload length as pages
//	per run: u64 first page, u32 pages with the top bit set for zero pages
//	payload: the pages of the runs that are not zero, in order
const (
	chunkVersion = 1
	chunkHeader  = 8 + 4 + 3*4
	runSize      = 12
	flagZstd     = 1
	zeroBit      = 1 << 31

	// maxRuns bounds the list of a chunk; zero runs have no payload to do so.
	maxRuns = 1024

	// MaxChunk is the largest encoded chunk, in bytes.
	MaxChunk = chunkHeader + maxRuns*runSize + BlockSize
)

// Errors of chunks and targets.
var (
	ErrChunk  = errors.New("damaged chunk of guest RAM")
	ErrBounds = errors.New("pages outside the guest's RAM")
)

// Chunk is an encoded part of a delta: up to 256 KiB of pages, any number of
// zero pages. It can be checked and applied on its own, any number of times.
type Chunk []byte

// sum is the chunk's own checksum, as stored in it.
func (c Chunk) sum() uint64 { return binary.LittleEndian.Uint64(c) }

// PageBytes is how many bytes of pages an encoded chunk stands for, zero pages
// left out.
func (c Chunk) PageBytes() int { return int(binary.LittleEndian.Uint32(c[20:])) }

// part is one run of a decoded chunk.
type part struct {
	Run
	zero bool
}

// parse checks everything about a chunk but the compression: its checksum, its
// lengths, and that its runs lie inside an image of that many pages. The
// payload returned is as stored.
func parse(chunk Chunk, pages uint64, parts []part) (_ []part, payload []byte, raw int, err error) {
	bad := func(format string, args ...any) ([]part, []byte, int, error) {
		return parts, nil, 0, fmt.Errorf("%w: %s", ErrChunk, fmt.Sprintf(format, args...))
	}
	if len(chunk) < chunkHeader || len(chunk) > MaxChunk {
		return bad("%d bytes", len(chunk))
	}
	if sum := xxhash.Sum64(chunk[8:]); sum != chunk.sum() {
		return bad("checksum %016x, expected %016x", sum, chunk.sum())
	}
	if chunk[8] != chunkVersion || chunk[9]&^flagZstd != 0 || chunk[10] != 0 || chunk[11] != 0 {
		return bad("version %d, flags %x", chunk[8], chunk[9])
	}
	runs := binary.LittleEndian.Uint32(chunk[12:])
	stored := binary.LittleEndian.Uint32(chunk[16:])
	size := binary.LittleEndian.Uint32(chunk[20:])
	if runs > maxRuns || size > BlockSize || int(runs)*runSize+int(stored) != len(chunk)-chunkHeader {
		return bad("%d runs, %d bytes stored for %d", runs, stored, size)
	}
	list, filled := chunk[chunkHeader:chunkHeader+int(runs)*runSize], uint64(0)
	for ; len(list) > 0; list = list[runSize:] {
		p := part{Run: Run{First: binary.LittleEndian.Uint64(list)}}
		count := binary.LittleEndian.Uint32(list[8:])
		p.zero, p.Count = count&zeroBit != 0, uint64(count&^zeroBit)
		if p.Count == 0 || p.Count > pages || p.First > pages-p.Count {
			return parts, nil, 0, fmt.Errorf("chunk with pages %d+%d of %d: %w", p.First, p.Count, pages, ErrBounds)
		}
		if !p.zero {
			filled += p.Count * PageSize
		}
		parts = append(parts, p)
	}
	if filled != uint64(size) || (chunk[9]&flagZstd == 0 && stored != size) {
		return bad("%d bytes of pages announced, %d in its runs, %d stored", size, filled, stored)
	}
	return parts, chunk[chunkHeader+int(runs)*runSize:], int(size), nil
}

// Digest is a running checksum over the chunks of a delta, in order: the same
// at both ends only if no chunk was lost, added, changed or moved.
type Digest struct{ hash xxhash.Digest }

// NewDigest returns the digest of a delta without chunks.
func NewDigest() *Digest {
	d := &Digest{}
	d.hash.Reset()
	return d
}

// Add takes in the next chunk. Only its checksum and length enter, as the
// content has been or will be compared with that checksum on its own.
func (d *Digest) Add(chunk Chunk) {
	var b [12]byte
	if len(chunk) >= 8 {
		binary.LittleEndian.PutUint64(b[:], chunk.sum())
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(len(chunk)))
	_, _ = d.hash.Write(b[:])
}

// Sum is the digest so far.
func (d *Digest) Sum() uint64 { return d.hash.Sum64() }
