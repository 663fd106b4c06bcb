package work

import (
	"bytes"
	"fmt"
)

// LogSlots is the number of records a log holds; then it begins anew.
const LogSlots = 4096

// LogSize is the size of a log in bytes.
const LogSize = LogSlots * RecordSize

// History is what a log says.
type History struct {
	Records int    // in the log now
	First   Record // oldest
	Last    Record // newest; zero in an empty log
}

// ReadHistory checks a whole log, as found on a disk whose guest is off: every
// record true in itself and following the one before, none missing, nothing
// beyond the last. A write that a crash cut in two passes, as the two sectors
// may land in any order; nothing else does.
func ReadHistory(log []byte) (History, error) {
	slots := uint64(len(log) / RecordSize)
	records := make([]*Record, slots)
	var h History
	for i := range slots {
		sector := log[i*RecordSize:][:RecordSize]
		if isZero(sector) {
			continue
		}
		r, err := ParseRecord(sector)
		if err != nil {
			return h, fmt.Errorf("slot %d of the log: %w", i, err)
		}
		if err := r.Check(); err != nil {
			return h, err
		}
		if slot(r.Sequence, slots) != i {
			return h, fmt.Errorf("record %d is in slot %d of the log", r.Sequence, i)
		}
		records[i] = &r
		h.Records++
		if r.Sequence > h.Last.Sequence {
			h.Last = r
		}
	}
	if h.Records == 0 {
		return h, nil
	}
	return h, h.walk(records)
}

// walk goes back from the newest record and expects to meet all of them.
func (h *History) walk(records []*Record) error {
	slots := uint64(len(records))
	h.First = h.Last
	met := 1
	for h.First.Sequence > 1 {
		earlier := records[slot(h.First.Sequence-1, slots)]
		if earlier == nil || earlier.Sequence >= h.First.Sequence {
			break
		}
		if err := h.First.Follows(*earlier); err != nil {
			return err
		}
		h.First = *earlier
		met++
	}
	if met != h.Records {
		return fmt.Errorf("record %d is the newest, %d records lead to it, but the log holds %d", h.Last.Sequence, met, h.Records)
	}
	// One slot is the zero after the newest; a second one when the newest of
	// all was cut off.
	if want := min(h.Last.Sequence, slots-2); uint64(met) < want {
		return fmt.Errorf("record %d is missing: the log holds only %d records up to %d", h.First.Sequence-1, met, h.Last.Sequence)
	}
	return nil
}

// slot is where a record goes.
func slot(sequence, slots uint64) uint64 { return (sequence - 1) % slots }

var zero [RecordSize]byte

// isZero says whether a sector has nothing. Byte by byte a new log would cost a
// guest whose processor is translated a tenth of a second.
func isZero(sector []byte) bool { return bytes.Equal(sector, zero[:]) }
