package replicator

import (
	"path/filepath"
	"time"

	"vmctl/snapshot/undo"
)

// State of the content of a replica's disks, as its Identity keeps it: whole (one
// that the guest's disks have had, as far as the guest could tell), held (in a
// resync, with the last whole one behind it), or torn.

// Content is what a replica's disks have.
type Content struct {
	Whole    bool      // as they are
	Followed bool      // an owner's stream is being applied
	Held     bool      // the whole content of Time can be restored
	Time     time.Time // of the newest whole content; the zero Time: there is none
	Bytes    int64     // that holding it takes
}

// Content is what is kept of the disks' content; without an Identity, nothing.
func (i *Identity) Content() Content {
	if i == nil {
		return Content{}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	c := Content{Whole: i.rec.Whole, Held: i.rec.Held != 0}
	switch {
	case c.Held:
		c.Time = time.Unix(0, i.rec.Held)
	case c.Whole:
		c.Time = time.Unix(0, i.rec.Until)
	}
	return c
}

// SayWhole keeps, durably, that the content is whole, as of a time, and nothing held
// any more.
func (i *Identity) SayWhole(of time.Time) error {
	return i.say(func(rec *identityRecord) {
		rec.Whole, rec.Held, rec.Until = true, 0, of.UnixNano()
	})
}

// SayHeld keeps, durably, that the disks hold their present content, which is
// whole, and will not be.
func (i *Identity) SayHeld(of time.Time) error {
	return i.say(func(rec *identityRecord) {
		rec.Whole, rec.Held = false, of.UnixNano()
	})
}

// SayTorn keeps, durably, that the content is not whole, nor is anything held. It
// can be said on a full disk.
func (i *Identity) SayTorn() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.rec.Whole && i.rec.Held == 0 {
		return nil
	}
	i.rec.Whole, i.rec.Held = false, 0
	if err := i.writeOrRemove(); err != nil {
		return err
	}
	if i.stale { // removed: who finds no identity finds nothing held
		return i.files.SyncDir(filepath.Dir(i.path))
	}
	return nil
}

// say changes the file if it does not say so already.
func (i *Identity) say(change func(*identityRecord)) error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.rec
	change(&i.rec)
	if !i.stale && i.rec.Whole == before.Whole && i.rec.Held == before.Held {
		return nil
	}
	if err := i.write(); err != nil {
		i.rec = before // what the file says now nobody knows, which stale stands for
		return err
	}
	return nil
}

// lastWhole is when a whole content was known to be that of the guest's disks at
// last, or was written to.
func (i *Identity) lastWhole(disks map[string]*undo.Disk) (time.Time, error) {
	last := i.Content().Time
	for _, disk := range disks {
		written, err := disk.Written()
		if err != nil {
			return last, err
		}
		if written.After(last) {
			last = written
		}
	}
	return last, nil
}
