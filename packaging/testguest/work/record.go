package work

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// RecordSize is the size of a record on disk: one sector, which disks write
// whole or not at all.
const RecordSize = 512

var magic = [8]byte{'v', 'm', 'r', 'e', 'c', 'o', 'r', 'd'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrRecord means that a sector holds no record, or a damaged one.
var ErrRecord = errors.New("not a record")

// Record is one line of the log on a disk.
type Record struct {
	Sequence uint64 // records since the disk was empty, from 1
	Boot     uint32 // runs since the disk was empty, from 1
	Every    uint32 // steps between two records
	Counter  uint64 // steps since the start of this run
	Token    Token
	Written  uint64 // pages of memory rewritten
	Pages    uint32 // pages of memory
	Previous Chain  // before this step
	Chain    Chain  // after this step
	Sample   Sample // of the memory, part of this step's link
}

// Append appends the record's RecordSize bytes to b.
func (r Record) Append(b []byte) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = append(b, magic[:]...)
	b = le.AppendUint64(b, r.Sequence)
	b = le.AppendUint32(b, r.Boot)
	b = le.AppendUint32(b, r.Every)
	b = le.AppendUint64(b, r.Counter)
	b = append(b, r.Token[:]...)
	b = le.AppendUint64(b, r.Written)
	b = le.AppendUint32(b, r.Pages)
	b = append(b, r.Previous[:]...)
	b = append(b, r.Chain[:]...)
	b = append(b, r.Sample[:]...)
	b = append(b, make([]byte, RecordSize-4-(len(b)-start))...)
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// ParseRecord reads a sector. The record is whole, but not yet checked.
func ParseRecord(sector []byte) (Record, error) {
	var r Record
	if len(sector) != RecordSize {
		return r, fmt.Errorf("%w: %d bytes", ErrRecord, len(sector))
	}
	le := binary.LittleEndian
	if [8]byte(sector) != magic {
		return r, fmt.Errorf("%w: begins with %x", ErrRecord, sector[:8])
	}
	if have, want := le.Uint32(sector[RecordSize-4:]), crc32.Checksum(sector[:RecordSize-4], castagnoli); have != want {
		return r, fmt.Errorf("%w: checksum %08x, should be %08x", ErrRecord, have, want)
	}
	r.Sequence = le.Uint64(sector[8:])
	r.Boot = le.Uint32(sector[16:])
	r.Every = le.Uint32(sector[20:])
	r.Counter = le.Uint64(sector[24:])
	r.Token = Token(sector[32:])
	r.Written = le.Uint64(sector[48:])
	r.Pages = le.Uint32(sector[56:])
	r.Previous = Chain(sector[60:])
	r.Chain = Chain(sector[92:])
	r.Sample = Sample(sector[124:])
	return r, nil
}

// Check says whether the record is true in itself: the memory sample is what
// the memory had to hold then, and the chain follows from it.
func (r Record) Check() error {
	switch {
	case r.Sequence == 0 || r.Boot == 0 || r.Every == 0 || r.Pages == 0 || r.Counter == 0 || r.Counter%uint64(r.Every) != 0:
		return fmt.Errorf("record %d: impossible numbers (boot %d, counter %d, every %d, pages %d)", r.Sequence, r.Boot, r.Counter, r.Every, r.Pages)
	case r.Sample != ExpectedSample(r.Token, r.Previous, uint64(r.Pages), r.Written):
		return fmt.Errorf("record %d: the memory sample is not of this instant (counter %d, %d pages written)", r.Sequence, r.Counter, r.Written)
	case r.Chain != Link(r.Previous, r.Counter, r.Sample):
		return fmt.Errorf("record %d: the chain does not follow from its own link (counter %d)", r.Sequence, r.Counter)
	}
	return nil
}

// Follows says whether r may be the record after earlier.
func (r Record) Follows(earlier Record) error {
	if r.Sequence != earlier.Sequence+1 {
		return fmt.Errorf("record %d follows record %d", r.Sequence, earlier.Sequence)
	}
	last := earlier.Chain
	switch r.Boot {
	case earlier.Boot:
		if r.Token != earlier.Token || r.Every != earlier.Every || r.Pages != earlier.Pages {
			return fmt.Errorf("record %d: another token (%v after %v) without a boot", r.Sequence, r.Token, earlier.Token)
		}
		if r.Counter != earlier.Counter+uint64(r.Every) || r.Written < earlier.Written {
			return fmt.Errorf("record %d: counter %d follows %d (every %d)", r.Sequence, r.Counter, earlier.Counter, r.Every)
		}
	case earlier.Boot + 1:
		if r.Token == earlier.Token || r.Counter != uint64(r.Every) {
			return fmt.Errorf("record %d: a new boot begins with token %v, counter %d", r.Sequence, r.Token, r.Counter)
		}
		last = Start(earlier.Chain, r.Token)
	default:
		return fmt.Errorf("record %d: boot %d follows boot %d", r.Sequence, r.Boot, earlier.Boot)
	}
	if r.Every == 1 && r.Previous != last {
		return fmt.Errorf("record %d: the chain is broken: goes on from %v, the record before ended in %v", r.Sequence, r.Previous, last)
	}
	return nil
}
