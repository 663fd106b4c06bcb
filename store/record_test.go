package store

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
	"time"
)

// What a newer vmctl adds to a record, an older one skips; what it lacks is zero.
func TestFieldsOfOtherVersions(t *testing.T) {
	type inner struct{ A, B int }
	type older struct {
		Name string
		When time.Time
	}
	type newer struct {
		Extra  map[string][]inner
		Name   string
		Nested *inner
		When   time.Time
		Flag   bool
	}
	now := time.Now().UTC().Truncate(0)
	raw, err := encodeRecord([]byte("table/t"), []byte("k"), stamp{1, 2},
		newer{Extra: map[string][]inner{"x": {{1, 2}}}, Name: "n", Nested: &inner{3, 4}, When: now, Flag: true})
	if err != nil {
		t.Fatal(err)
	}
	var old older
	s, err := decodeRecord([]byte("table/t"), []byte("k"), raw, &old)
	if err != nil || s != (stamp{1, 2}) || old.Name != "n" || !old.When.Equal(now) {
		t.Errorf("older reader: %+v %+v %v", s, old, err)
	}
	if raw, err = encodeRecord([]byte("table/t"), []byte("k"), stamp{1, 2}, old); err != nil {
		t.Fatal(err)
	}
	var again newer
	if _, err = decodeRecord([]byte("table/t"), []byte("k"), raw, &again); err != nil || again.Name != "n" || again.Nested != nil {
		t.Errorf("newer reader: %+v %v", again, err)
	}
}

func TestEqualValuesHaveEqualRecords(t *testing.T) {
	value := map[string]string{}
	for _, k := range "abcdefghij" {
		value[string(k)] = "v"
	}
	one, _ := encodeRecord([]byte("t"), []byte("k"), stamp{}, value)
	for range 20 {
		if two, _ := encodeRecord([]byte("t"), []byte("k"), stamp{}, value); !bytes.Equal(one, two) {
			t.Fatal("the same value was encoded in two ways")
		}
	}
}

// Every single flipped bit is noticed, in the record and in where it is.
func TestRecordDamage(t *testing.T) {
	bucket, key := []byte("table/guests"), []byte("web")
	raw, err := encodeRecord(bucket, key, stamp{7, 8}, guest{Name: "web", Blob: []byte("0123456789")})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{raw, bucket, key} {
		for bit := range len(part) * 8 {
			part[bit/8] ^= 1 << (bit % 8)
			if _, err := decodeRecord(bucket, key, raw, new(guest)); err == nil {
				t.Fatalf("bit %d flipped and not noticed", bit)
			}
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
	for n := range raw {
		_, err := decodeRecord(bucket, key, raw[:n], new(guest))
		wantErr(t, err, ErrCorrupt, "table guests", `"web"`)
	}
}

type fuzzed struct {
	guest
	When  time.Time
	Any   any
	Map   map[string]any
	Inner *fuzzed
	Ints  [4]int16
	Float float32
}

// FuzzDecodeRecord gives bodies their right checksum, so the msgpack decoder
// sees them too.
func FuzzDecodeRecord(f *testing.F) {
	bucket, key := []byte("table/t"), []byte("k")
	whole := fuzzed{guest: guest{Name: "n", Notes: map[string]string{"a": "b"}}, When: time.Unix(1, 2), Any: []any{1, "x", nil},
		Map: map[string]any{"m": 1.5}, Inner: &fuzzed{}, Ints: [4]int16{1, -2, 3}}
	raw, err := encodeRecord(bucket, key, stamp{300, 1 << 40}, whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(append(raw[:len(raw):len(raw)], 0xc1, 0xff))
	f.Add([]byte{recordFormat, 0, 0, 0, 0, 1, 2, 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{recordFormat, 0, 0, 0, 0, 1, 2, 0x81, 0xa1, 'x', 0x91, 0x91, 0x91, 0x91})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = decodeRecord(bucket, key, raw, new(fuzzed))
		if len(raw) < recordHeader {
			return
		}
		raw = bytes.Clone(raw)
		raw[0] = recordFormat
		binary.BigEndian.PutUint32(raw[1:], checksum(bucket, key, raw[recordHeader:]))
		var g guest
		s, err := decodeRecord(bucket, key, raw, &g)
		_, _ = decodeRecord(bucket, key, raw, new(fuzzed))
		if err != nil {
			return
		}
		again, err := encodeRecord(bucket, key, s, g)
		if err != nil {
			t.Fatal(err)
		}
		var g2 guest
		if s2, err := decodeRecord(bucket, key, again, &g2); err != nil || s2 != s || !reflect.DeepEqual(g, g2) {
			t.Fatalf("%+v became %+v (%v)", g, g2, err)
		}
	})
}
