package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// TestDecodeMakesNoRoomForWhatIsNotThere: each of these few bytes makes the
// decoder allocate gigabytes, or call itself until the process ends.
func TestDecodeMakesNoRoomForWhatIsNotThere(t *testing.T) {
	for name, body := range map[string][]byte{
		"array of 2^32-1":            {0xdd, 0xff, 0xff, 0xff, 0xff},
		"array of 2^32-1, one there": {0xdd, 0xff, 0xff, 0xff, 0xff, 0x80},
		"array of 65535":             {0xdc, 0xff, 0xff, 0x80, 0x80},
		"array of two, one there":    {0x92, 0x80},
		"map of 2^32-1":              {0xdf, 0xff, 0xff, 0xff, 0xff, 0x01},
		"map in an array":            {0x91, 0xde, 0xff, 0xff, 0x01},
		"string of 2^32-1":           {0xdb, 0xff, 0xff, 0xff, 0xff, 'a'},
		"extension, cut":             {0xc9, 0x00, 0x00, 0x00, 0x01, 0x01},
		"length, cut":                {0xdd, 0x00},
		"nothing":                    {},
		"no value":                   {0xc1},
		"arrays in arrays in arrays": bytes.Repeat([]byte{0x91}, 1<<20),
		"the same, ended well":       append(bytes.Repeat([]byte{0x91}, 1<<20), 0xc0),
		"maps of an array in a map":  bytes.Repeat([]byte{0x81, 0xa1, 'x'}, 1<<18),
	} {
		var list []note
		var loose any
		for _, into := range []any{&list, &loose, &struct{}{}} {
			if err := Decode(body, into); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s into %T: %v", name, into, err)
			}
		}
	}
}

// TestShapesOfAllValues passes everything that the encoder can write.
func TestShapesOfAllValues(t *testing.T) {
	long := make([]int, 70_000)
	for _, value := range []any{
		nil, true, false, 0, -1, 127, 128, -33, 1 << 10, -1 << 10, 1 << 20, -1 << 20, 1 << 40, -1 << 40, uint64(1) << 63, float32(1), 1.5,
		"", "a", string(make([]byte, 40)), string(make([]byte, 300)), string(make([]byte, 70_000)),
		[]byte{}, make([]byte, 300), make([]byte, 70_000), []int{}, []int{1}, make([]int, 20), long,
		map[string]int{}, map[string]int{"a": 1}, map[string][]any{"a": {1, nil, map[string]any{"b": 2}}},
		time.Unix(1, 0), time.Unix(1, 5), time.Unix(1<<35, 5), note{Data: []byte{1}},
	} {
		body, err := msgpack.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkShape(body); err != nil {
			t.Errorf("%T of %d bytes: %v", value, len(body), err)
		}
		for cut := range min(len(body), 50) {
			if err := checkShape(body[:cut]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T cut after %d bytes: %v", value, cut, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0xa4, 'd', 'a', 't', 'a', 0xc4, 1, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		var list []note
		var loose any
		_ = Decode(body, &list)
		_ = Decode(body, &loose)
	})
}
