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
)

// foldName is the file that says which segment a Fold is adding to.
const foldName = "fold"

// Fold forgets the markers between keep and before, the newest one excepted,
// without forgetting the way back to keep: what only they have logged goes over
// to keep's segment. So markers that came to nothing cost no more than the disk
// has bytes. Writes go on meanwhile. Cut off or failed, at a full disk for
// example, it has changed nothing that matters, and may be called again. Without
// a marker keep it does nothing.
func (d *Disk) Fold(keep, before uint64) error {
	d.syncing.Lock() // no Rollback, Drop, Sync or Close meanwhile
	defer d.syncing.Unlock()
	into, between := d.foldable(keep, before)
	if len(between) == 0 {
		return nil
	}
	if err := d.fold(into, between); err != nil {
		return fmt.Errorf("fold the undo log of %s into marker %d: %w", d.path, keep, err)
	}
	return nil
}

// foldable are the segments of Fold; none of them takes records any more.
func (d *Disk) foldable(keep, before uint64) (into *segment, between []*segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil
	}
	for _, s := range d.segments[:max(len(d.segments)-1, 0)] {
		switch {
		case s.sequence == keep && s.damage == nil:
			into = s
		case into != nil && s.sequence < before && s.damage == nil:
			between = append(between, s)
		}
	}
	return into, between
}

// fold copies and then removes. Undoing goes from the newest segment to the
// oldest, so what stands in into and, until it is removed, in a later one too
// does no harm.
func (d *Disk) fold(into *segment, between []*segment) error {
	intent := filepath.Join(d.undoPath(), foldName)
	if err := d.writeIntent(intent, into.sequence); err != nil {
		return err
	}
	saved := blockSet{}
	had, err := d.verify(into)
	if err != nil {
		return err
	}
	for _, r := range had {
		saved.add(r.whole(d.size))
	}
	for _, s := range between {
		if err := d.copyMissing(into, s, saved); err != nil {
			return err
		}
	}
	if err := errors.Join(into.file.Sync(), d.files.SyncDir(d.undoPath())); err != nil {
		return err
	}
	d.mu.Lock()
	d.segments = slices.DeleteFunc(d.segments, func(s *segment) bool { return slices.Contains(between, s) })
	d.mu.Unlock()
	for _, s := range between {
		if err := s.remove(); err != nil {
			return err
		}
	}
	return d.files.Remove(intent)
}

// copyMissing adds those blocks of from's records to into that saved has not.
func (d *Disk) copyMissing(into, from *segment, saved blockSet) error {
	all, err := d.verify(from)
	if err != nil {
		return err
	}
	room := longest(all)
	buf, raw := make([]byte, room), make([]byte, headerSize+room)
	for _, r := range all {
		content, err := from.readContent(r, buf)
		if err != nil {
			return err
		}
		block, last := r.blocks()
		_, wholeEnd := r.whole(d.size)
		for {
			first, end := saved.missing(block, last)
			if first == end {
				break
			}
			off, stop := first*blockSize, min(end*blockSize, r.offset+r.length)
			piece, magic := raw[:headerSize], uint32(magicZero)
			if content != nil {
				magic = magicData
				piece = append(piece, content[off-r.offset:stop-r.offset]...)
			}
			putHeader(piece, magic, into.sequence, off, stop-off, piece[headerSize:])
			d.mu.Lock() // Used reads the end
			err := into.append(piece)
			d.mu.Unlock()
			if err != nil {
				return err
			}
			saved.add(first, min(end, wholeEnd))
			block = end
		}
	}
	return nil
}

// blocks are the blocks that a record has, block aligned but for the disk's end.
func (r record) blocks() (first, end int64) {
	return r.offset / blockSize, (r.offset + r.length + blockSize - 1) / blockSize
}

// finishFold cuts off the record that a Fold was adding when the process died.
// Its content is still in the segment it came from.
func (d *Disk) finishFold() error {
	path := filepath.Join(d.undoPath(), foldName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	into, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	for _, s := range d.segments {
		if err == nil && s.sequence == into {
			if err := s.resume(d.size); err != nil {
				return err
			}
		}
	}
	return d.files.Remove(path) // of half an intent, too: nothing was added yet
}
