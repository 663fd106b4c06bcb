package qga

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

// FuzzDecode: whatever a guest sends, reading ends, bounded, and what is given
// out as an answer is one.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"\xff{\"return\": 77}\n{\"return\": {}}\n", "\xff\xff{\"return\": 77}\n", "{\"return\"\xff{\"return\": 77}\n{\"error\": {\"class\": \"c\"}}\n",
		"\n\r\n\xff\n", "\xff{\"return\": 77.5}\n", "\xff{\"return\": [77]}\n", "login: \x00\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(bytes.NewReader(data))
		if r.skipTo(77) == nil && !bytes.ContainsRune(data, '7') {
			t.Fatal("in step with nothing")
		}
		for range 100 {
			line, err := r.line()
			if err != nil {
				return
			}
			if len(line) > maxLine {
				t.Fatalf("a line of %d bytes", len(line))
			}
			var ns int64
			var refused *Error
			if err := decodeAnswer(line, &ns); err != nil && !errors.As(err, &refused) && !errors.Is(err, ErrProtocol) {
				t.Fatalf("an error of no kind: %v", err)
			} else if err == nil && !json.Valid(line) {
				t.Fatalf("an answer that is no JSON: %q", line)
			}
		}
	})
}
