package golden

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Updating says whether the files are written anew, for tests that keep their
// expectations in a form of their own.
func Updating() bool { return *update }

// Compare fails the test if got is not what the file testdata/NAME holds.
func Compare(t testing.TB, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		Write(t, file, got)
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read what is expected (write it with -update): %v", err)
	}
	if got != string(want) {
		t.Errorf("not what %s has (read it, then write it anew with -update):\n%s", file, got)
	}
}

// Write makes a file and the folders above it.
func Write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
