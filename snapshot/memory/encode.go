package memory

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// EncodeOptions say how a delta is sent.
type EncodeOptions struct {
	Compress bool // zstd level 1 for chunks where it saves an eighth or more
	SkipZero bool // leave zero pages out: the other end starts from zeros
	// Choose, if not nil, says before each chunk whether to compress it.
	Choose func() bool
}

// Summary describes an encoded delta; it is what a trailer carries.
type Summary struct {
	Chunks   uint64
	Pages    uint64 // pages with data
	Zeros    uint64 // pages sent as zero
	Bytes    uint64 // encoded size
	Checksum uint64 // Digest over the chunks
}

// Encoder turns deltas into chunks. It keeps its buffers from one delta to the
// next and is not safe for concurrent use.
type Encoder struct {
	compressor *zstd.Encoder
	out        []byte // header and runs, then the stored payload
	pages      []byte
	parts      []part
	skip       int // chunks not to try compressing
}

// NewEncoder allocates what encoding needs, under 2 MiB.
func NewEncoder() (*Encoder, error) {
	compressor, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(BlockSize), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("set up compression of guest RAM: %w", err)
	}
	return &Encoder{compressor: compressor, out: make([]byte, 0, MaxChunk+4096),
		pages: make([]byte, 0, BlockSize), parts: make([]part, 0, maxRuns)}, nil
}

// zeroPage is only ever compared with.
var zeroPage [PageSize]byte

// Encode reads the delta's pages from the shadow and hands them to emit in
// chunks, each valid only until emit returns. It stops at emit's first error.
func (e *Encoder) Encode(ctx context.Context, shadow *Shadow, delta *Delta, opts EncodeOptions, emit func(Chunk) error) (Summary, error) {
	if err := shadow.acquire(); err != nil {
		return Summary{}, fmt.Errorf("encode guest RAM: %w", err)
	}
	defer shadow.release()
	if delta.pages != shadow.Pages() {
		return Summary{}, fmt.Errorf("encode a delta of %d pages from a shadow of %d: %w", delta.pages, shadow.Pages(), ErrSize)
	}
	e.pages, e.parts, e.skip = e.pages[:0], e.parts[:0], 0
	var sum Summary
	digest := NewDigest()
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		compress := opts.Compress
		if opts.Choose != nil {
			compress = opts.Choose()
		}
		chunk := e.chunk(compress)
		digest.Add(chunk)
		sum.Chunks++
		sum.Bytes += uint64(len(chunk))
		e.pages, e.parts = e.pages[:0], e.parts[:0]
		return emit(chunk)
	}
	for run := range delta.Runs() {
		for index := run.First; index < run.First+run.Count; index++ {
			page := shadow.page(index)
			zero := bytes.Equal(page, zeroPage[:])
			if zero && opts.SkipZero {
				continue
			}
			if !e.fits(index, zero) {
				if err := flush(); err != nil {
					return sum, fmt.Errorf("encode guest RAM: %w", err)
				}
			}
			e.add(index, zero, page)
			if zero {
				sum.Zeros++
			} else {
				sum.Pages++
			}
		}
	}
	if len(e.parts) > 0 {
		if err := flush(); err != nil {
			return sum, fmt.Errorf("encode guest RAM: %w", err)
		}
	}
	sum.Checksum = digest.Sum()
	return sum, nil
}

// extends tells whether a page goes on with the last run.
func (e *Encoder) extends(index uint64, zero bool) bool {
	if len(e.parts) == 0 {
		return false
	}
	last := e.parts[len(e.parts)-1]
	return last.zero == zero && last.First+last.Count == index && last.Count < zeroBit-1
}

// fits tells whether the chunk being built has room for one more page.
func (e *Encoder) fits(index uint64, zero bool) bool {
	if !zero && len(e.pages)+PageSize > BlockSize {
		return false
	}
	return len(e.parts) < maxRuns || e.extends(index, zero)
}

func (e *Encoder) add(index uint64, zero bool, page []byte) {
	if e.extends(index, zero) {
		e.parts[len(e.parts)-1].Count++
	} else {
		e.parts = append(e.parts, part{Run{index, 1}, zero})
	}
	if !zero {
		e.pages = append(e.pages, page...)
	}
}

// chunk encodes the collected pages.
func (e *Encoder) chunk(compress bool) Chunk {
	start := chunkHeader + len(e.parts)*runSize
	out := append(e.out[:0], make([]byte, start)...)
	flags := byte(0)
	if compress && len(e.pages) > 0 && e.worthTrying() {
		out = e.compressor.EncodeAll(e.pages, out)
		if saved := len(e.pages) - (len(out) - start); saved >= len(e.pages)/8 {
			flags = flagZstd
		} else {
			out, e.skip = out[:start], 7
		}
	}
	if flags == 0 {
		out = append(out, e.pages...)
	}
	out[8], out[9] = chunkVersion, flags
	binary.LittleEndian.PutUint32(out[12:], uint32(len(e.parts)))
	binary.LittleEndian.PutUint32(out[16:], uint32(len(out)-start))
	binary.LittleEndian.PutUint32(out[20:], uint32(len(e.pages)))
	for i, p := range e.parts {
		at := out[chunkHeader+i*runSize:]
		count := uint32(p.Count)
		if p.zero {
			count |= zeroBit
		}
		binary.LittleEndian.PutUint64(at, p.First)
		binary.LittleEndian.PutUint32(at[8:], count)
	}
	binary.LittleEndian.PutUint64(out, xxhash.Sum64(out[8:]))
	e.out = out
	return Chunk(out)
}

// worthTrying spares the processor after a chunk that did not shrink: memory
// that does not compress (caches of media, encrypted data) comes in rows.
func (e *Encoder) worthTrying() bool {
	if e.skip > 0 {
		e.skip--
		return false
	}
	return true
}
