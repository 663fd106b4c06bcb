package memory

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Target is where the pages of a chunk go.
type Target interface {
	WriteAt(p []byte, off int64) (int, error)
	Zero(off, length int64) error // the bytes read as zeros from then on
}

// Decoder checks and applies chunks for one size of guest RAM. It is not safe
// for concurrent use.
type Decoder struct {
	pages        uint64
	decompressor *zstd.Decoder
	parts        []part
	buf          []byte
}

// Extent is a run of pages of a chunk; zero pages take no memory.
type Extent struct {
	Run
	Zero bool
}

// NewDecoder returns a decoder for images of that many pages.
func NewDecoder(pages uint64) (*Decoder, error) {
	decompressor, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(BlockSize), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("set up decompression of guest RAM: %w", err)
	}
	return &Decoder{pages: pages, decompressor: decompressor, buf: make([]byte, 0, BlockSize)}, nil
}

// Close ends the decompressor.
func (d *Decoder) Close() { d.decompressor.Close() }

// Check does all that Apply does except writing: a chunk that passes can fail
// to apply only because of the target. It calls visit, which may be nil, for
// each run.
func (d *Decoder) Check(chunk Chunk, visit func(Extent) error) error {
	if _, err := d.decode(chunk); err != nil {
		return err
	}
	for _, p := range d.parts {
		if visit == nil {
			break
		}
		if err := visit(Extent{p.Run, p.zero}); err != nil {
			return err
		}
	}
	return nil
}

// Apply writes a chunk's pages to target. Nothing is written unless the whole
// chunk is good; applying it twice does no harm.
func (d *Decoder) Apply(chunk Chunk, target Target) error {
	payload, err := d.decode(chunk)
	if err != nil {
		return err
	}
	for _, p := range d.parts {
		off, length := int64(p.First*PageSize), int64(p.Count*PageSize)
		if p.zero {
			if err := target.Zero(off, length); err != nil {
				return fmt.Errorf("zero pages %d+%d: %w", p.First, p.Count, err)
			}
			continue
		}
		if _, err := target.WriteAt(payload[:length], off); err != nil {
			return fmt.Errorf("write pages %d+%d: %w", p.First, p.Count, err)
		}
		payload = payload[length:]
	}
	return nil
}

// decode fills d.parts and returns the pages.
func (d *Decoder) decode(chunk Chunk) ([]byte, error) {
	parts, payload, raw, err := parse(chunk, d.pages, d.parts[:0])
	d.parts = parts
	if err != nil {
		return nil, err
	}
	if chunk[9]&flagZstd == 0 {
		return payload, nil
	}
	pages, err := d.decompressor.DecodeAll(payload, d.buf[:0])
	if err != nil || len(pages) != raw {
		return nil, fmt.Errorf("%w: decompressed to %d bytes of %d (%v)", ErrChunk, len(pages), raw, err)
	}
	return pages, nil
}

// Apply writes one chunk to an image of that many pages. For many chunks use a
// Decoder.
func Apply(chunk Chunk, pages uint64, target Target) error {
	d, err := NewDecoder(pages)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Apply(chunk, target)
}
