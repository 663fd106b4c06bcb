package memory

import (
	"bytes"
	"fmt"
	"io"
)

// EncodeRuns reads pages of an image and hands them to emit in chunks, as Encode
// does and not compressed: what is about to be overwritten, so that it can be put
// back. Runs must rise.
func EncodeRuns(image io.ReaderAt, runs []Run, emit func(Chunk) error) (sum Summary, err error) {
	e, digest, page := &Encoder{pages: make([]byte, 0, BlockSize)}, NewDigest(), make([]byte, PageSize)
	flush := func() error {
		chunk := e.chunk(false)
		digest.Add(chunk)
		sum.Chunks++
		sum.Bytes += uint64(len(chunk))
		e.pages, e.parts = e.pages[:0], e.parts[:0]
		return emit(chunk)
	}
	for _, run := range runs {
		for index := run.First; index < run.First+run.Count; index++ {
			if _, err := image.ReadAt(page, int64(index*PageSize)); err != nil {
				return sum, fmt.Errorf("read page %d of guest RAM: %w", index, err)
			}
			zero := bytes.Equal(page, zeroPage[:])
			if !e.fits(index, zero) {
				if err := flush(); err != nil {
					return sum, err
				}
			}
			if e.add(index, zero, page); zero {
				sum.Zeros++
			} else {
				sum.Pages++
			}
		}
	}
	if len(e.parts) > 0 {
		if err := flush(); err != nil {
			return sum, err
		}
	}
	sum.Checksum = digest.Sum()
	return sum, nil
}
