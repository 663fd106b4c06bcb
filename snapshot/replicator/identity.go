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
)

// Identity names the content of a replica: as long as it stays the same, nothing
// but the streams that were admitted under it has changed a byte. It is kept in a
// file beside the replica, and replaced by Renew, and by OpenIdentity
//
//   - after a boot of this host, unless everything was durable and no stream
//     served when the host went down (Rest): what was applied may be lost;
//   - when an image is another file than it was.
type Identity struct {
	path  string
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
}

// OpenIdentity opens the identity of a replica that is held open by nobody else;
// path is its file, boot the present boot of this host, images its disks.
func OpenIdentity(path, boot string, images []string) (*Identity, error) {
	i := &Identity{path: path}
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
	if err != nil || len(i.rec.ID) == 0 || !slices.Equal(i.rec.Images, inodes) || i.rec.Boot != boot && !i.rec.Rests {
		i.rec = identityRecord{ID: newID()}
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
	i.rec.ID, i.rec.Rests = newID(), false
	err := i.write()
	if err == nil || i.shut {
		return err
	}
	if removed := os.Remove(i.path); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		return errors.Join(err, removed)
	}
	return nil // on a full disk, for example: there is none until Wake
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
	i.rec.ID, i.rec.Rests, i.stale = newID(), false, true
	if i.shut {
		return errShut
	}
	if err := os.Remove(i.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// Rest says that all that was written is durable, and that nobody writes. It does
// nothing if somebody may: since is Wake's, and there was another one.
func (i *Identity) Rest(since uint64) error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.wakes != since || i.stale || i.rec.Rests {
		return nil
	}
	i.rec.Rests = true
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
		err = replaceFile(i.path, raw)
	}
	i.stale = err != nil // for all we know; Wake has to mend that
	if err != nil {
		return fmt.Errorf("keep the identity of a replica: %w", err)
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
