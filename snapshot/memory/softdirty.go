package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Bits of an entry of /proc/PID/pagemap.
const (
	pagePresent   = 1 << 63
	pageSoftDirty = 1 << 55
)

// deepEvery is how many checks pass between two that also look at every other
// process and at huge pages.
const deepEvery = 64

// ErrSituation means that soft-dirty bits would not name every changed page.
var ErrSituation = errors.New("the kernel's soft-dirty bits cannot be relied on")

// Tracker is a Dirty by the kernel's soft-dirty bits of one process, QEMU. The
// bits are of page table entries: they tell what was written through QEMU's own
// mapping, and not, what was written past it or lost with the entry. See
// situation.go for what follows.
type Tracker struct {
	proc    string   // /proc/PID/ by a directory that stays this process's
	dir     *os.File // of /proc/PID
	pagemap *os.File
	refs    *os.File
	file    unix.Stat_t // of the RAM file
	size    uint64
	checks  int
	buffer  []byte
}

// NewTracker returns the tracker of the process that runs a guest with this
// RAM. It says ErrSituation if its kernel, this guest or this host do not let
// the bits be relied on.
func NewTracker(pid int, live *Image) (*Tracker, error) {
	if err := selfTest(); err != nil {
		return nil, err
	}
	t, err := openTracker(pid, live.file, live.Size())
	if err != nil {
		return nil, err
	}
	if err := t.Allowed(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func openTracker(pid int, ram *os.File, size int64) (t *Tracker, err error) {
	t = &Tracker{size: uint64(size), buffer: make([]byte, 64<<10)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("track the pages of process %d: %w", pid, err), t.Close())
		}
	}()
	if err := unix.Fstat(int(ram.Fd()), &t.file); err != nil {
		return t, err
	}
	// What is opened through this directory is this process's, or nothing: a
	// number that the kernel gives out again leads nowhere.
	if t.dir, err = os.Open(filepath.Join("/proc", strconv.Itoa(pid))); err != nil {
		return t, err
	}
	t.proc = fmt.Sprintf("/proc/self/fd/%d/", t.dir.Fd())
	if t.pagemap, err = os.Open(t.proc + "pagemap"); err != nil {
		return t, err
	}
	t.refs, err = os.OpenFile(t.proc+"clear_refs", os.O_WRONLY, 0)
	return t, err
}

// Find implements Dirty. A page without an entry in the page table may have been
// written: its bit went with the entry. Or it was never touched, like most of a
// guest's memory after a takeover, so that it is none that was for sure.
func (t *Tracker) Find(named, sure *Delta) error {
	area, err := t.area()
	if err != nil {
		return err
	}
	pages := t.size / PageSize
	for first := uint64(0); first < pages; {
		part := t.buffer[:min(uint64(len(t.buffer)), (pages-first)*8)]
		n, err := t.pagemap.ReadAt(part, int64((area.start/PageSize+first)*8))
		if n < len(part) {
			return fmt.Errorf("read the page table of QEMU: %d of %d bytes: %w", n, len(part), err)
		}
		// The buffer is a whole number of words of the set.
		for at := 0; at < len(part); at += 8 {
			entry := binary.LittleEndian.Uint64(part[at:])
			page := first + uint64(at)/8
			bit := uint64(1) << (page % BlockPages)
			switch {
			case entry&pagePresent == 0:
				named.words[page/BlockPages] |= bit
			case entry&pageSoftDirty != 0:
				named.words[page/BlockPages] |= bit
				sure.words[page/BlockPages] |= bit
			}
		}
		first += uint64(len(part)) / 8
	}
	return nil
}

// Clear implements Dirty.
func (t *Tracker) Clear() error {
	if _, err := t.refs.WriteAt([]byte("4"), 0); err != nil {
		return fmt.Errorf("clear the soft-dirty bits of QEMU: %w", err)
	}
	return nil
}

// Close implements Dirty.
func (t *Tracker) Close() error {
	var err error
	for _, f := range []*os.File{t.dir, t.pagemap, t.refs} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
