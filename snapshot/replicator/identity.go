package replicator

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"vmctl/snapshot/durable"
)

// Identity names the content of a replica: as long as it stays the same, nothing
// but the streams that were admitted under it has changed a byte. It is kept in a
// file beside the replica, and replaced by Renew, and by OpenIdentity
//
//   - after a boot of this host, unless everything was durable and no stream
//     served when the host went down (Rest): what was applied may be lost;
//   - when an image is another file than it was.
//
// In the same file stands whether the content is one that the guest's disks have
// had, which a resync ends for its time, and whether such a one is held.
type Identity struct {
	path  string
	files durable.Files
	mu    sync.Mutex
	rec   identityRecord
	shut  bool // the file is another Identity's
	stale bool // the file is not rec
	wakes uint64
}

type identityRecord struct {
	ID     []byte   `json:"id"`
	Boot   string   `json:"boot"`
	Rests  bool     `json:"rests"`
	Images []uint64 `json:"images"` // inodes

	Whole bool  `json:"whole,omitempty"` // the content is one that the disks have had
	Until int64 `json:"until,omitempty"` // when it was known to be whole at last, ns since 1970
	Held  int64 `json:"held,omitempty"`  // the disks hold the content of this time; 0: they hold nothing
}

// OpenIdentity opens the identity of a replica that is held open by nobody else;
// path is its file, boot the present boot of this host, images its disks.
func OpenIdentity(files durable.Files, path, boot string, images []string) (*Identity, error) {
	i := &Identity{path: path, files: files}
	var inodes []uint64
	for _, image := range images {
		info, err := os.Stat(image)
		if err != nil {
			return nil, fmt.Errorf("open the identity of a replica: %w", err)
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		inodes = append(inodes, stat.Ino)
	}
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &i.rec)
	}
	switch {
	case err != nil || len(i.rec.ID) == 0 || !slices.Equal(i.rec.Images, inodes):
		i.rec = identityRecord{ID: newID()}
	case i.rec.Boot != boot && !i.rec.Rests: // but what is held is held through a power cut
		i.rec = identityRecord{ID: newID(), Held: i.rec.Held}
	}
	// Written by Wake: a replica can be opened, and taken over, on a full disk.
	i.rec.Boot, i.rec.Images, i.stale = boot, inodes, true
	return i, nil
}

func newID() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

// Value is the identity, nil if it is not kept: it is after Wake.
func (i *Identity) Value() []byte {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stale {
		return nil
	}
	return slices.Clone(i.rec.ID)
}

// Renew says that the content is not what it was. An error means that a process
// after this one might not know that.
func (i *Identity) Renew() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.ID, i.rec.Rests, i.rec.Whole = newID(), false, false
	return i.writeOrRemove() // on a full disk, for example, there is none until Wake
}

// writeOrRemove replaces the file, or if that fails removes it.
func (i *Identity) writeOrRemove() error {
	err := i.write()
	if err == nil || i.shut {
		return err
	}
	if removed := i.files.Remove(i.path); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		return errors.Join(err, removed)
	}
	return nil
}

// Forget is Renew for a replica whose life as one ends: nothing waits for a disk,
// and only a boot of the host could bring the old identity back, to owners that
// are fenced.
func (i *Identity) Forget() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec.ID, i.rec.Rests, i.rec.Whole, i.stale = newID(), false, false, true
	if i.shut {
		return errShut
	}
	if err := i.files.Remove(i.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the identity of a replica: %w", err)
	}
	return nil
}

// Wake takes Rest back, durably, and returns what the next Rest has to know. It is
// called before a stream may write anything.
func (i *Identity) Wake() (since uint64, err error) {
	if i == nil {
		return 0, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.wakes++ // whatever comes of it, no earlier stream's Rest is true any more
	if !i.rec.Rests && !i.stale {
		return i.wakes, nil
	}
	i.rec.Rests = false
	return i.wakes, i.write()
}

// woken is what the newest Wake returned.
func (i *Identity) woken() uint64 {
	if i == nil {
		return 0
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.wakes
}

// Rest says that all that was written is durable, and that nobody writes; what is
// whole was the guest's at that time. It does nothing if somebody may write: since is
// Wake's, and there was another one.
func (i *Identity) Rest(since uint64, whole time.Time) error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.wakes != since || i.stale || i.rec.Rests {
		return nil
	}
	i.rec.Rests = true
	if i.rec.Whole {
		i.rec.Until = whole.UnixNano()
	}
	return i.write()
}

// close lets go of the file: another Identity may be opened on it.
func (i *Identity) close() {
	if i != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.shut = true
	}
}

var errShut = errors.New("the identity of a replica is closed")

// write replaces the file, durably.
func (i *Identity) write() error {
	if i.shut {
		return errShut
	}
	raw, err := json.Marshal(i.rec)
	if err == nil {
		err = replaceFile(i.files, i.path, raw)
	}
	i.stale = err != nil // for all we know; Wake has to mend that
	if err != nil {
		return fmt.Errorf("keep the identity of a replica: %w", err)
	}
	return nil
}

func replaceFile(files durable.Files, path string, content []byte) error {
	file, err := files.Place(path, func(file *durable.File) error {
		if _, err := file.Write(content); err != nil {
			return err
		}
		return file.Sync()
	})
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return files.SyncDir(filepath.Dir(path))
}
