package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"vmctl/snapshot/durable"
)

// A hold keeps one content of the disk through a power cut, which no marker does:
// beside the segments there is one of its own, and what a write overwrites for the
// first time is in it durably before the write. It is apart from the markers, of
// which it disturbs none; but a Rollback ends the truth of it.
//
// A record says how far the segment was durable when it was made. What a power cut
// may have torn or left out is behind that, and belongs to blocks that were not
// overwritten: it is cut off. Damage before it is damage.

const holdName = "hold.log"

func (d *Disk) holdPath() string { return filepath.Join(d.undoPath(), holdName) }

// Hold keeps the present content until Release: Restore brings it back. All that
// was written before is durable when it returns. With a hold already there it does
// nothing.
func (d *Disk) Hold() error {
	if d.Held() {
		return nil
	}
	if err := d.Sync(); err != nil { // most of it, while writes go on
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("hold %s: %w", d.path, ErrClosed)
	}
	err := d.image.SyncData()
	if err == nil {
		d.held, err = createHold(d.files, d.holdPath(), d.size)
	}
	if err != nil {
		return fmt.Errorf("hold %s: %w", d.path, err)
	}
	return nil
}

func createHold(files durable.Files, path string, diskSize int64) (*segment, error) {
	s := &segment{path: path, files: files, end: headerSize, synced: headerSize, saved: blockSet{}, hold: true}
	var err error
	s.file, err = files.Place(path, func(file *durable.File) error {
		var head [headerSize]byte
		putHeader(head[:], magicSegment, 0, 0, diskSize, nil)
		if _, err := file.WriteAt(head[:], 0); err != nil {
			return err
		}
		return file.Sync()
	})
	if err != nil {
		return nil, err
	}
	if err = files.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, s.remove()) // a later Open must not take it for one that was kept
	}
	return s, nil
}

// Held says whether there is a hold, good or damaged.
func (d *Disk) Held() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held != nil
}

// CheckHold says what is wrong with the hold, if anything: ErrMarker when there is
// none, ErrDamaged when it cannot be restored.
func (d *Disk) CheckHold() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		return fmt.Errorf("nothing is held of %s: %w", d.path, ErrMarker)
	}
	return d.held.damage
}

// HoldBytes is how much the hold takes.
func (d *Disk) HoldBytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		return 0
	}
	return d.held.end
}

// Prepare logs for the hold what a write of the range will overwrite. After
// SyncHold, which may be of many ranges, that write has nothing to wait for.
// Without a hold both do nothing.
func (d *Disk) Prepare(off, length int64) error {
	if err := d.inside(off, length); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("write %s: %w", d.path, ErrClosed)
	}
	return d.preserveIn(d.held, off, length)
}

// SyncHold makes durable what was logged for the hold; writes go on meanwhile.
func (d *Disk) SyncHold() error {
	d.syncing.Lock() // no Release or Close meanwhile
	defer d.syncing.Unlock()
	d.mu.Lock()
	s := d.held
	if s == nil || !s.unsynced || d.closed {
		d.mu.Unlock()
		return nil
	}
	end := s.end
	d.mu.Unlock()
	err := s.file.SyncData()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		return s.doubt(err)
	}
	s.synced = max(s.synced, end)
	s.unsynced = s.synced < s.end
	return nil
}

// settle is SyncHold for a caller with d.mu.
func (s *segment) settle() error {
	if err := s.file.SyncData(); err != nil {
		return s.doubt(err)
	}
	s.synced, s.unsynced = s.end, false
	return nil
}

// doubt is for a sync that failed: what it did not make durable no later one tells.
func (s *segment) doubt(err error) error {
	s.damage = fmt.Errorf("%w: it was not made durable: %w", ErrDamaged, err)
	return fmt.Errorf("sync what is held: %w", err)
}

// VerifyHold says whether Restore would find everything that it needs.
func (d *Disk) VerifyHold() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.held == nil {
		return fmt.Errorf("nothing is held of %s: %w", d.path, ErrMarker)
	}
	_, err := d.verifyHold(d.held)
	return err
}

// Restore makes the image what it was at Hold, durably. The hold stays, so it may
// be done again, also after a power cut; nothing may be written in between. On
// ErrDamaged and ErrMarker, when there is no hold, nothing was changed.
func (d *Disk) Restore() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return fmt.Errorf("restore %s: %w", d.path, ErrClosed)
	case d.held == nil:
		return fmt.Errorf("restore %s: nothing is held: %w", d.path, ErrMarker)
	}
	all, err := d.verifyHold(d.held)
	if err == nil {
		err = d.undo(d.held, all)
	}
	if err == nil {
		err = d.image.Sync()
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", d.path, err)
	}
	return nil
}

// Release forgets the hold. Cut off, the hold may be there again after the next
// Open, and not be true any more: who releases has to know that he did.
func (d *Disk) Release() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	s := d.held
	d.held = nil
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := s.remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release what is held of %s: %w", d.path, err)
	}
	return nil
}
