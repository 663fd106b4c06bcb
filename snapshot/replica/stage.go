package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"vmctl/snapshot/durable"
	"vmctl/snapshot/memory"
)

// staged is a checkpoint on its way in. Nothing of it counts until commit. One
// goroutine, the receiver's, owns it.
type staged struct {
	files   files
	begin   Begin
	loads   uint64        // Replica.loads when it was begun
	ram     *ramFile      // the image: a new one for a full checkpoint
	delta   *durable.File // chunks of a delta; nil for a full image
	path    string        // of what has to go if this is discarded
	decoder *memory.Decoder
	digest  *memory.Digest
	buf     []byte
	runs    []memory.Run // of a delta: what it overwrites

	chunks, pages, zeros uint64
	bytes                int64
	blob                 []byte
	kept                 bool
}

// addChunk verifies a chunk completely and stages it. For a delta, memory for
// its pages is reserved now: after the commit point nothing may run out.
func (s *staged) addChunk(m *Chunk) error {
	if m.Index != s.chunks {
		return fmt.Errorf("chunk %d of checkpoint %d/%d where %d was due: %w", m.Index, m.Epoch, m.Sequence, s.chunks, ErrProtocol)
	}
	chunk := memory.Chunk(m.Data)
	err := s.decoder.Check(chunk, func(e memory.Extent) error {
		if s.delta != nil {
			s.addRun(e.Run)
		}
		if e.Zero {
			s.zeros += e.Count
			return nil
		}
		s.pages += e.Count
		if s.delta == nil {
			return nil
		}
		return s.ram.reserve(int64(e.First*memory.PageSize), int64(e.Count*memory.PageSize))
	})
	if err != nil {
		return fmt.Errorf("stage chunk %d: %w", m.Index, err)
	}
	s.bytes += int64(len(chunk))
	if s.bytes > s.begin.RAMSize+s.begin.RAMSize/8+memory.MaxChunk {
		return fmt.Errorf("stage chunk %d: %d bytes for %d of RAM: %w", m.Index, s.bytes, s.begin.RAMSize, ErrDamaged)
	}
	s.digest.Add(chunk)
	s.chunks++
	if s.delta == nil {
		return s.decoder.Apply(chunk, s.ram)
	}
	s.buf = framed(s.buf[:0], chunk)
	if err := s.files.write(s.delta, s.buf); err != nil {
		return fmt.Errorf("stage chunk %d: %w", m.Index, err)
	}
	return nil
}

func (s *staged) addBlob(m *Blob) error {
	if m.Offset != int64(len(s.blob)) {
		return fmt.Errorf("device state at %d where %d was due: %w", m.Offset, len(s.blob), ErrProtocol)
	}
	if len(s.blob)+len(m.Data) > maxBlob {
		return fmt.Errorf("device state of more than %d bytes: %w", maxBlob, ErrDamaged)
	}
	s.blob = append(s.blob, m.Data...)
	return nil
}

// verify compares what arrived with what the sender says it sent.
func (s *staged) verify(end *End) error {
	if end.Chunks != s.chunks || end.Pages != s.pages || end.Zeros != s.zeros || end.Checksum != s.digest.Sum() {
		return fmt.Errorf("%d chunks with %d and %d zero pages of %d, %d and %d: %w",
			s.chunks, s.pages, s.zeros, end.Chunks, end.Pages, end.Zeros, ErrDamaged)
	}
	if sum := sha256.Sum256(s.blob); !bytes.Equal(sum[:], end.BlobSum) {
		return fmt.Errorf("device state of %d bytes: %w", len(s.blob), ErrDamaged)
	}
	return nil
}

// discard closes everything and, unless the checkpoint was committed, removes
// the staged file. It may be called more than once.
func (s *staged) discard() error {
	if s.decoder == nil {
		return nil
	}
	s.decoder.Close()
	s.decoder = nil
	err := s.ram.Close()
	if s.delta != nil {
		err = errors.Join(err, s.delta.Close())
	}
	if !s.kept {
		err = errors.Join(err, s.files.remove(s.path))
	}
	return err
}

// framed is a chunk as it stands in a file.
func framed(buf []byte, chunk memory.Chunk) []byte {
	return append(binary.LittleEndian.AppendUint32(buf, uint32(len(chunk))), chunk...)
}

// eachChunk reads a staged delta.
func eachChunk(delta io.Reader, use func(memory.Chunk) error) error {
	in := bufio.NewReaderSize(delta, 64<<10)
	buf := make([]byte, memory.MaxChunk)
	for {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read staged delta: %w", err)
		}
		n := binary.LittleEndian.Uint32(length[:])
		if n > memory.MaxChunk {
			return fmt.Errorf("read staged delta: chunk of %d bytes: %w", n, ErrDamaged)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return fmt.Errorf("read staged delta: %w", err)
		}
		if err := use(buf[:n]); err != nil {
			return err
		}
	}
}

// checkDelta compares a staged delta that another process left with the record.
func checkDelta(delta io.ReadSeeker, c *commit) error {
	decoder, err := memory.NewDecoder(c.pages())
	if err != nil {
		return err
	}
	defer decoder.Close()
	digest, chunks := memory.NewDigest(), uint64(0)
	if _, err := delta.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read staged delta: %w", err)
	}
	if err := eachChunk(delta, func(chunk memory.Chunk) error {
		digest.Add(chunk)
		chunks++
		return decoder.Check(chunk, nil)
	}); err != nil {
		return err
	}
	if chunks != c.End.Chunks || digest.Sum() != c.End.Checksum {
		return fmt.Errorf("staged delta of checkpoint %d/%d: %w", c.Begin.Epoch, c.Begin.Sequence, ErrDamaged)
	}
	return nil
}

// applyDelta writes a verified delta to the image, from its beginning.
func applyDelta(delta io.ReadSeeker, decoder *memory.Decoder, target memory.Target) error {
	if _, err := delta.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read staged delta: %w", err)
	}
	return eachChunk(delta, func(chunk memory.Chunk) error { return decoder.Apply(chunk, target) })
}
