package witness

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// resident is how many kB of the mapping of a file are mapped.
func resident(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(data), path)
	_, after, ok := strings.Cut(after, "\nRss:")
	if !found || !ok {
		t.Fatalf("no mapping of %s", path)
	}
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

func TestPagesOfFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mapped")
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/4)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mapped, err := unix.Mmap(int(file.Fd()), 0, len(content), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mapped) }()
	err = mapSingly()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		t.Skip("not with this kernel:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	middle := len(content) / 2
	if mapped[middle] != content[middle] {
		t.Error("another byte")
	}
	if kb := resident(t, path); kb != os.Getpagesize()>>10 {
		t.Errorf("%d kB came with one byte", kb)
	}
	if !bytes.Equal(mapped, content) {
		t.Error("another content")
	}
	if kb := resident(t, path); kb != len(content)>>10 {
		t.Errorf("%d kB of %d are mapped", kb, len(content)>>10)
	}
	if err := dropFilePages(); err != nil {
		t.Fatal(err)
	}
	if kb := resident(t, path); kb != 0 {
		t.Errorf("%d kB stayed", kb)
	}
	if !bytes.Equal(mapped, content) {
		t.Error("another content came back")
	}
}
