package vm

import (
	"encoding/json"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func TestParseSize(t *testing.T) {
	good := map[string]Size{
		"512M": 512 * MiB, "1GiB": GiB, "1.5G": 1536 * MiB, "64k": 64 * KiB, " 2 T ": 2 * TiB,
		"1048576": MiB, "0": 0, "100B": 100, "0.5K": 512,
	}
	for text, want := range good {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1M", "1.5", "512MB", "1X", "1e3M", "0x10", "1/2G", "9999999P", "1..5G", "1 2M", "infG"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", text, got)
		}
	}
}

func TestSizeRoundTrip(t *testing.T) {
	for _, size := range []Size{0, 1, 511, KiB, 1536 * MiB, GiB + 1, 3 * PiB, 1<<63 - 1} {
		var got struct{ S Size }
		text, err := json.Marshal(struct{ S Size }{size})
		if err != nil || json.Unmarshal(text, &got) != nil || got.S != size {
			t.Errorf("JSON: %d became %s became %d", size, text, got.S)
		}
		packed, err := msgpack.Marshal(struct{ S Size }{size})
		got.S = -1
		if err != nil || msgpack.Unmarshal(packed, &got) != nil || got.S != size {
			t.Errorf("msgpack: %d became %d", size, got.S)
		}
	}
	var s Size
	if err := json.Unmarshal([]byte("1048576"), &s); err != nil || s != MiB {
		t.Errorf("a JSON number is bytes: got %v, %v", s, err)
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"512M", "1.5GiB", "7", "1MB", "999999999999P"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(size.String()); err != nil || again != size || size < 0 {
			t.Errorf("%q is %d, written %q, read %d (%v)", text, size, size, again, err)
		}
	})
}
