package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Counter gives out the sequences of a guest's checkpoints on the owner. They
// rise over crashes and epochs: it makes a block of numbers durable before it
// gives out the first, so a crash skips some and repeats none.
type Counter struct {
	dir, path string
	files     files

	mu       sync.Mutex
	last     uint64 // given out
	reserved uint64 // durable: numbers up to here may have been given out
}

// counterBlock is how many numbers a durable write is good for.
const counterBlock = 4096

const counterMagic = "vmctl sequence 1"

// OpenCounter opens or starts the counter in the file path.
func OpenCounter(path string) (*Counter, error) {
	c := &Counter{dir: filepath.Dir(path), path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint counter: %w", err)
	}
	head := len(counterMagic) + 8
	if len(data) != head+8 || !bytes.HasPrefix(data, []byte(counterMagic)) ||
		xxhash.Sum64(data[:head]) != binary.BigEndian.Uint64(data[head:]) {
		return nil, fmt.Errorf("open checkpoint counter %s: %w; raise the guest's epoch and remove the file", path, ErrRecord)
	}
	c.reserved = binary.BigEndian.Uint64(data[len(counterMagic):])
	c.last = c.reserved
	return c, nil
}

// Next gives a number that is higher than above and than every one before. It
// writes to the disk once in 4096 calls; call it before the pause.
func (c *Counter) Next(above uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := max(c.last, above) + 1
	if next > c.reserved {
		if err := c.reserve(next + counterBlock); err != nil {
			return 0, fmt.Errorf("number the next checkpoint: %w", err)
		}
	}
	c.last = next
	return next, nil
}

// Last is the highest number given out, or possibly given out before a crash.
func (c *Counter) Last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *Counter) reserve(limit uint64) error {
	data := binary.BigEndian.AppendUint64([]byte(counterMagic), limit)
	data = binary.BigEndian.AppendUint64(data, xxhash.Sum64(data))
	if err := c.files.replace(c.path, data); err != nil {
		return err
	}
	if err := c.files.syncDir(c.dir); err != nil {
		return err
	}
	c.reserved = limit
	return nil
}
