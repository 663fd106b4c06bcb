package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"

	"github.com/vmihailenco/msgpack/v5"
)

// record is everything durable about a replica, in one file that is replaced
// by rename: any two facts in it are of the same moment.
type record struct {
	Floor  uint64  `msgpack:"floor"` // epochs below are refused
	Void   *Void   `msgpack:"void"`
	Commit *commit `msgpack:"commit"`
	Before *commit `msgpack:"before,omitempty"` // the one before it, its Delta the way back; see StepBack
	// Rolling is the checkpoint that a takeover brings all disks back to, 0: none.
	// While it stands here, no disk is used before it is there.
	Rolling uint64 `msgpack:"rolling,omitempty"`
}

// commit describes the committed checkpoint.
type commit struct {
	Begin    Begin  `msgpack:"begin"`
	End      End    `msgpack:"end"`
	BootID   string `msgpack:"boot_id"`
	RAM      string `msgpack:"ram"`   // file name in the RAM directory
	Delta    string `msgpack:"delta"` // staged file to apply to it; empty for a full image
	BlobData []byte `msgpack:"blob"`
}

func (c *commit) pages() uint64 { return uint64(c.Begin.RAMSize) / memory.PageSize }

const (
	recordName  = "checkpoint"
	recordMagic = "vmctl replica 1\n"
	recordMax   = 2*maxBlob + 1<<20
)

// encode gives magic, length, sha256 of the body, body.
func (r *record) encode() ([]byte, error) {
	body, err := msgpack.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode replica record: %w", err)
	}
	sum := sha256.Sum256(body)
	out := append([]byte(recordMagic), binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	return append(append(out, sum[:]...), body...), nil
}

func decodeRecord(data []byte) (*record, error) {
	const head = len(recordMagic) + 4 + sha256.Size
	if len(data) < head || string(data[:len(recordMagic)]) != recordMagic {
		return nil, fmt.Errorf("%w: no header", ErrRecord)
	}
	body := data[head:]
	if int(binary.BigEndian.Uint32(data[len(recordMagic):])) != len(body) {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(data))
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(recordMagic)+4:head]) {
		return nil, fmt.Errorf("%w: checksum differs", ErrRecord)
	}
	var r record
	if err := wire.Decode(body, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if r.Commit == nil && r.Before != nil {
		return nil, fmt.Errorf("%w: a checkpoint before none", ErrRecord)
	}
	for _, c := range []*commit{r.Commit, r.Before} {
		if c == nil {
			continue
		}
		sum := sha256.Sum256(c.BlobData)
		if !plainName(c.RAM) || (c.Delta != "" && !plainName(c.Delta)) ||
			c.Begin.RAMSize <= 0 || c.Begin.RAMSize%memory.PageSize != 0 || !bytes.Equal(sum[:], c.End.BlobSum) {
			return nil, fmt.Errorf("%w: checkpoint %d/%d does not describe itself", ErrRecord, c.Begin.Epoch, c.Begin.Sequence)
		}
	}
	return &r, nil
}

// plainName guards against a record that names files elsewhere.
func plainName(name string) bool {
	return name != "" && name == filepath.Base(name) && !strings.HasPrefix(name, ".")
}

// readRecord gives the zero record if there is none.
func readRecord(dir string) (*record, error) {
	path := filepath.Join(dir, recordName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &record{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read replica record: %w", err)
	}
	if info.Size() > recordMax {
		return nil, fmt.Errorf("read replica record %s: %w: %d bytes", path, ErrRecord, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read replica record: %w", err)
	}
	r, err := decodeRecord(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; without it nothing here can be trusted: remove the replica and protect the guest again", path, err)
	}
	return r, nil
}

// errUnsure marks a failure after the rename: only reading tells what holds.
var errUnsure = errors.New("record may or may not be in place")

// writeRecord replaces the record. Unless the error is errUnsure, a failure
// leaves the old one.
func (f files) writeRecord(dir string, r *record) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	if err := f.replace(filepath.Join(dir, recordName), data); err != nil {
		return fmt.Errorf("write replica record: %w", err)
	}
	if err := f.syncDir(dir); err != nil {
		return fmt.Errorf("write replica record: %w (%w)", err, errUnsure)
	}
	return nil
}
