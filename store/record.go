package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/vmihailenco/msgpack/v5"
)

// A record is: format byte, CRC-32C (big endian) over bucket, key and body, and
// the body: msgpack revision, epoch, value. Structs are msgpack maps, so a field
// a reader does not know is skipped and one the writer did not know is zero.
const (
	recordFormat = 1
	recordHeader = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp is what the store itself knows of a record.
type stamp struct {
	revision uint64
	epoch    uint64
}

func encodeRecord(bucket, key []byte, s stamp, value any) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, recordHeader))
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&buf)
	enc.UseCompactInts(true)
	enc.SetSortMapKeys(true)
	// Writes to a bytes.Buffer do not fail; only a value can be at fault.
	_ = enc.EncodeUint(s.revision)
	_ = enc.EncodeUint(s.epoch)
	if err := enc.Encode(value); err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", name(bucket), key, err)
	}
	raw := buf.Bytes()
	raw[0] = recordFormat
	binary.BigEndian.PutUint32(raw[1:], checksum(bucket, key, raw[recordHeader:]))
	return raw, nil
}

// decodeRecord fills value (a pointer; nil to check and read the stamp only).
// Nothing in value refers to raw, which is only valid in its transaction.
func decodeRecord(bucket, key, raw []byte, value any) (stamp, error) {
	var s stamp
	if len(raw) < recordHeader {
		return s, fmt.Errorf("%w: record %s %q is %d bytes", ErrCorrupt, name(bucket), key, len(raw))
	}
	if raw[0] != recordFormat {
		return s, fmt.Errorf("%w: record %s %q has unknown format %d", ErrCorrupt, name(bucket), key, raw[0])
	}
	body := raw[recordHeader:]
	if checksum(bucket, key, body) != binary.BigEndian.Uint32(raw[1:]) {
		return s, fmt.Errorf("%w: record %s %q has a wrong checksum", ErrCorrupt, name(bucket), key)
	}
	s, err := decodeBody(body, value)
	if err != nil {
		return stamp{}, fmt.Errorf("%w: record %s %q does not decode: %w", ErrCorrupt, name(bucket), key, err)
	}
	return s, nil
}

// decodeBody also makes an error of a panic: msgpack panics on some values
// that do not fit, such as nil for a time.Time, which a version that changed
// the type of a field may well have written.
func decodeBody(body []byte, value any) (s stamp, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a value does not fit its type: %v", p)
		}
	}()
	dec := msgpack.NewDecoder(bytes.NewReader(body))
	if s.revision, err = dec.DecodeUint64(); err == nil {
		s.epoch, err = dec.DecodeUint64()
	}
	if err == nil && value != nil {
		err = dec.Decode(value)
	}
	return s, err
}

func checksum(bucket, key, body []byte) uint32 {
	var length [8]byte // of bucket and key: their border must not move
	binary.BigEndian.PutUint32(length[:4], uint32(len(bucket)))
	binary.BigEndian.PutUint32(length[4:], uint32(len(key)))
	sum := crc32.Checksum(length[:], castagnoli)
	for _, part := range [][]byte{bucket, key, body} {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

// Buckets of tables and logs are told apart by their first bytes.
const (
	tablePrefix = "table/"
	logPrefix   = "log/"
)

// name is a bucket in words: "table guests".
func name(bucket []byte) string {
	return string(bytes.Replace(bucket, []byte("/"), []byte(" "), 1))
}
