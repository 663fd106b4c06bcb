package memory

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// selfTest runs once in a process: it clears the process's own bits, which
// makes every page that is written afterwards cost a fault.
var selfTest = sync.OnceValue(SelfTest)

// SelfTest tries soft-dirty bits on a piece of memory of this process: every
// way of writing must be seen, and the situations in which a Tracker must not
// be used must be seen too. Kernels without the bits fail it with ErrSituation.
func SelfTest() error {
	if err := trySoftDirty(); err != nil {
		return fmt.Errorf("self-test of soft-dirty bits: %w", err)
	}
	return nil
}

const testPages = 3 * BlockPages

// trial is the piece of memory that is tried on.
type trial struct {
	file    *os.File
	ram     []byte
	tracker *Tracker
}

func trySoftDirty() (err error) {
	fd, err := unix.MemfdCreate("soft-dirty", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	t := &trial{file: os.NewFile(uintptr(fd), "soft-dirty")}
	defer func() { err = errors.Join(err, t.file.Close()) }()
	if err := t.file.Truncate(testPages * PageSize); err != nil {
		return err
	}
	if t.ram, err = unix.Mmap(fd, 0, testPages*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Munmap(t.ram)) }()
	if t.tracker, err = openTracker(os.Getpid(), t.file, testPages*PageSize); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.tracker.Close()) }()
	for _, try := range []func() error{t.tryWrites, t.tryHole, t.tryMapping} {
		if err := try(); err != nil {
			return err
		}
	}
	return nil
}

// expect compares the pages found with those written; all of them are written
// for sure, or none.
func (t *trial) expect(what string, surely bool, want ...uint64) error {
	found, sure := NewDelta(testPages), NewDelta(testPages)
	if err := t.tracker.Find(found, sure); err != nil {
		return err
	}
	if got := found.list(); !slices.Equal(got, want) {
		return fmt.Errorf("%s: pages %v are called written, %v were: %w", what, got, want, ErrSituation)
	}
	if !surely {
		want = nil
	}
	if got := sure.list(); !slices.Equal(got, want) {
		return fmt.Errorf("%s: pages %v are called written for sure, %v were: %w", what, got, want, ErrSituation)
	}
	return nil
}

// list is the pages of a small set, nil for none.
func (d *Delta) list() (pages []uint64) {
	for run := range d.Runs() {
		for p := run.First; p < run.First+run.Count; p++ {
			pages = append(pages, p)
		}
	}
	return pages
}

// tryWrites writes in the ways that QEMU does: from its threads, and by the
// kernel on their behalf.
func (t *trial) tryWrites() error {
	for p := range testPages {
		t.ram[p*PageSize] = 1
	}
	found := NewDelta(testPages)
	if err := errors.Join(t.tracker.Find(found, NewDelta(testPages)), t.tracker.Clear()); err != nil {
		return err
	}
	if found.Pages() == 0 {
		return fmt.Errorf("this kernel has none (CONFIG_MEM_SOFT_DIRTY): %w", ErrSituation)
	}
	if found.Pages() != testPages {
		return fmt.Errorf("%d of %d new pages are called written: %w", found.Pages(), testPages, ErrSituation)
	}
	if err := t.expect("bits cleared", true); err != nil {
		return err
	}
	t.ram[3*PageSize+9]++
	written := make(chan struct{})
	go func() {
		t.ram[100*PageSize]++
		close(written)
	}()
	<-written
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer zeros.Close()
	if _, err := zeros.Read(t.ram[191*PageSize:]); err != nil {
		return err
	}
	if t.ram[50*PageSize] != 1 { // reading is no writing
		return fmt.Errorf("page 50 lost what was written to it: %w", ErrSituation)
	}
	if err := t.expect("three pages written", true, 3, 100, 191); err != nil {
		return err
	}
	if err := t.tracker.Clear(); err != nil {
		return err
	}
	t.ram[100*PageSize]++
	return t.expect("one page written again", true, 100)
}

// tryHole: a page that lost its entry counts as written.
func (t *trial) tryHole() error {
	if err := t.tracker.Clear(); err != nil {
		return err
	}
	if err := (&File{t.file}).Zero(7*PageSize, PageSize); err != nil {
		return err
	}
	return t.expect("page taken away", false, 7)
}

// tryMapping: a second mapping is noticed.
func (t *trial) tryMapping() error {
	second, err := unix.Mmap(int(t.file.Fd()), 0, testPages*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	_, seen := t.tracker.area()
	if err := unix.Munmap(second); err != nil {
		return err
	}
	if !errors.Is(seen, ErrSituation) {
		return fmt.Errorf("a second mapping was not noticed (%v): %w", seen, ErrSituation)
	}
	_, err = t.tracker.area()
	return err
}
