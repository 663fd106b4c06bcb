package undo

import (
	"path/filepath"
	"sync"
	"testing"
)

// A disk that was closed while others read it can be opened at once: it is not
// "in use" until the last of them has had its answer.
func TestClosedUnderReadersCanBeOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	for range 200 {
		d, err := Open(path, 4<<20)
		must(t, err)
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for off := int64(0); ; off = (off + ChunkSize) % (4 << 20) {
					if _, err := d.Hash(off, ChunkSize); err != nil {
						return
					}
				}
			})
		}
		_, err = d.WriteAt([]byte("x"), 0)
		must(t, err)
		must(t, d.Close())
		again, err := Open(path, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		must(t, again.Close())
		readers.Wait()
	}
}
