package disk

import (
	"errors"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLargerThanTheFileSystemTakes: a disk of a size that no file here can have
// is refused in words, and leaves nothing. A limit of the process stands for that
// of the file system, as the kernel answers alike for both.
func TestLargerThanTheFileSystemTakes(t *testing.T) {
	const tib = 1 << 40
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: tib, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}()
	dir, source := t.TempDir(), filepath.Join(t.TempDir(), "image")
	write(t, source, []byte("x"), mib)
	for what, request := range map[string]Request{
		"an empty one":         {Format: "raw", Size: 2 * tib},
		"one with its space":   {Format: "raw", Size: 2 * tib, Preallocate: true},
		"one from an image":    {Format: "raw", Size: 2 * tib, Image: source, ImageFormat: "raw"},
		"qcow2 with its space": {Format: "qcow2", Size: 2 * tib, Preallocate: true},
	} {
		request.Path = filepath.Join(dir, "disk")
		if err := (Tool{}).Create(t.Context(), request); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
		only(t, dir)
	}
	write(t, filepath.Join(dir, "disk"), []byte("x"), mib)
	if err := (Tool{}).Grow(t.Context(), filepath.Join(dir, "disk"), "raw", 2*tib, false); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one that grows: %v", err)
	}
	for size, want := range map[int64]error{tib: nil, 2 * tib: ErrTooLarge} { // QEMU's own disk: asked beforehand
		if err := Takes(filepath.Join(dir, "disk"), size); !errors.Is(err, want) {
			t.Errorf("of %d bytes: %v, want %v", size, err, want)
		}
	}
	only(t, dir, "disk")
}
