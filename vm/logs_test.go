package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestKeepLogShort: whatever is appended between the looks is in the log or the one
// before it, in order, and both together are bounded.
func TestKeepLogShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serial.log")
	if err := KeepLogShort(path, 100); err != nil {
		t.Errorf("a log that is not there: %v", err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600) // and keeps it open
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	var all bytes.Buffer
	for n := range 200 {
		line := fmt.Sprintf("line %d\n", n)
		all.WriteString(line)
		if _, err := writer.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := KeepLogShort(path, 100); err != nil {
			t.Fatal(err)
		}
		older, _ := os.ReadFile(OlderLog(path))
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kept := append(older, now...)
		if !bytes.HasSuffix(all.Bytes(), kept) || len(kept) > 220 || all.Len() > 100 && len(kept) < 100 {
			t.Fatalf("after line %d %q is kept", n, kept)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
	// One that cannot be kept aside stays as it is.
	if err := os.Mkdir(OlderLog(path)+".partial", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	err = KeepLogShort(path, 100)
	if after, _ := os.ReadFile(path); err == nil || !bytes.Equal(before, after) {
		t.Errorf("%v, the log has %d bytes, %d before", err, len(after), len(before))
	}
}
