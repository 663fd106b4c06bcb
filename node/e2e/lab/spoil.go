package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vmihailenco/msgpack/v5"
)

// SpoilCheckpoint makes the device state of the newest checkpoint on this host
// one that no QEMU loads, as a QEMU that saves garbage would have: all checksums
// are right. The host's agent must not run.
func (h *Host) SpoilCheckpoint(uuid string) (sequence uint64, err error) {
	const magic = "vmctl replica 1\n"
	path := filepath.Join(h.StateDir(), "guests", uuid, "replica", "checkpoint")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	const head = len(magic) + 4 + sha256.Size
	if len(data) < head || string(data[:len(magic)]) != magic {
		return 0, fmt.Errorf("%s is no record of a replica", path)
	}
	var record map[string]any
	if err := msgpack.Unmarshal(data[head:], &record); err != nil {
		return 0, err
	}
	commit, _ := record["commit"].(map[string]any)
	begin, _ := commit["begin"].(map[string]any)
	end, _ := commit["end"].(map[string]any)
	blob, _ := commit["blob"].([]byte)
	if len(blob) == 0 || end == nil || record["before"] == nil {
		return 0, errors.New("there are no two checkpoints in the record")
	}
	sequence, err = number(begin["sequence"])
	if err != nil {
		return 0, err
	}
	copy(blob[64:], bytes.Repeat([]byte{0xee}, len(blob))) // a part of it might be some device's memory, which loads
	sum := sha256.Sum256(blob)
	end["blob_sum"] = sum[:]
	body, err := msgpack.Marshal(record)
	if err != nil {
		return 0, err
	}
	whole := sha256.Sum256(body)
	out := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(body)))
	return sequence, os.WriteFile(path, append(append(out, whole[:]...), body...), 0o600)
}

func number(v any) (n uint64, err error) {
	_, err = fmt.Sscan(fmt.Sprint(v), &n)
	return n, err
}
