package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vmctl/snapshot/durable"
)

// intentName is the file that says which marker a rollback is under way to.
const intentName = "rollback"

// Rollback brings the image back to marker to, exactly, makes it durable, and
// forgets the newer markers. On ErrMarker and ErrDamaged nothing was changed.
// Cut off by the end of the process, it is finished by the next Open; it may also
// be called again, which is the caller's business after a power cut: see SyncLog.
func (d *Disk) Rollback(to uint64) error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("roll back %s: %w", d.path, ErrClosed)
	}
	if err := d.rollback(to); err != nil {
		return fmt.Errorf("roll back %s to %d: %w", d.path, to, err)
	}
	return nil
}

func (d *Disk) rollback(to uint64) error {
	first := slices.IndexFunc(d.segments, func(s *segment) bool { return s.sequence == to })
	if first < 0 {
		return fmt.Errorf("%w (there are %d)", ErrMarker, len(d.segments))
	}
	// All is read and verified before the first byte changes.
	logs := make([][]record, len(d.segments))
	for i := first; i < len(d.segments); i++ {
		var err error
		if logs[i], err = d.verify(d.segments[i]); err != nil {
			return err
		}
	}
	intent := filepath.Join(d.undoPath(), intentName)
	if err := d.writeIntent(intent, to); err != nil {
		return err
	}
	for i := len(d.segments) - 1; i >= first; i-- {
		if err := d.undo(d.segments[i], logs[i]); err != nil {
			return err
		}
	}
	if err := d.image.Sync(); err != nil {
		return err
	}
	for last := len(d.segments) - 1; last > first; last-- {
		if err := d.segments[last].remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		d.segments = d.segments[:last]
	}
	// Its records stay: they are what the image has now, and as long as they are
	// there this can be done again from whatever a power cut leaves of the others.
	if err := d.segments[first].resume(d.size); err != nil {
		return err
	}
	return d.files.Remove(intent)
}

// writeIntent says under a name what is under way; it is there in whole or not
// at all while this process' writes are.
func (d *Disk) writeIntent(path string, to uint64) error {
	file, err := d.files.Place(path, func(file *durable.File) error {
		_, err := file.Write(strconv.AppendUint(nil, to, 10))
		return err
	})
	if err != nil {
		return err
	}
	return file.Close()
}

// verify lists the records of a segment after checking every one.
func (d *Disk) verify(s *segment) ([]record, error) {
	if s.damage != nil {
		return nil, fmt.Errorf("segment %d: %w", s.sequence, s.damage)
	}
	all, torn, err := s.records(d.size)
	if err != nil {
		return nil, err
	}
	if torn != s.end {
		return nil, fmt.Errorf("%w: segment %d is cut off at %d", ErrDamaged, s.sequence, torn)
	}
	buf := make([]byte, longest(all))
	for _, r := range all {
		if _, err := s.readContent(r, buf); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// undo writes the old contents back, newest record first.
func (d *Disk) undo(s *segment, all []record) error {
	buf := make([]byte, longest(all))
	for _, r := range slices.Backward(all) {
		content, err := s.readContent(r, buf)
		if err != nil {
			return err
		}
		if content == nil {
			err = d.zero(r.offset, r.length)
		} else {
			_, err = d.image.WriteAt(content, r.offset)
		}
		if err != nil {
			return fmt.Errorf("restore %d bytes at %d: %w", r.length, r.offset, err)
		}
	}
	return nil
}

// finishRollback completes a rollback that was cut off, at Open.
func (d *Disk) finishRollback() error {
	path := filepath.Join(d.undoPath(), intentName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil { // torn by a power cut: who rolled back has to know and do it again
		return d.files.Remove(path)
	}
	if err := d.rollback(to); err != nil {
		return fmt.Errorf("finish the rollback to %d: %w", to, err)
	}
	return nil
}

// Discard deletes the undo segments beside the image at path, which no Disk may
// have open. The image itself stays, as it is: whoever does this compares it
// against the other side. It is the way on when Open says ErrDamaged.
func Discard(path string) error {
	if err := os.RemoveAll(path + ".undo"); err != nil {
		return fmt.Errorf("discard the undo log of %s: %w", path, err)
	}
	return nil
}
