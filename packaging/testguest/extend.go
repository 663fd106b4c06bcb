package testguest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Extend writes an initramfs to path that has more files than the image's, or
// others in their place: paths in the guest, and files here.
func (i Image) Extend(path string, files map[string]string) error {
	more := &bytes.Buffer{}
	archive := &cpio{out: more}
	archive.addTree(files)
	archive.add("TRAILER!!!", 0, nil)
	base, err := os.ReadFile(i.Initrd)
	if err = errors.Join(err, archive.err); err != nil {
		return fmt.Errorf("extend the test guest: %w", err)
	}
	// What an archive behind another one has is added to it, or overwrites it.
	for len(base)%4 != 0 {
		base = append(base, 0)
	}
	return os.WriteFile(path, append(base, more.Bytes()...), 0o644)
}

// BuildBurdened is Build with a guest that does what benches tell it (package
// burden) in place of its workload, and has Debian's sqlite3. The initramfs is
// left in dir.
func BuildBurdened(ctx context.Context, cacheDir, dir string) (Image, error) {
	image, err := Build(ctx, cacheDir)
	if err != nil {
		return Image{}, err
	}
	burden := filepath.Join(dir, "burden")
	if err := run(ctx, "", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", burden, "vmctl/packaging/testguest/burden"); err != nil {
		return Image{}, fmt.Errorf("build the burden: %w", err)
	}
	files, err := fetchProgram(ctx, filepath.Join(dir, "sqlite3"), "sqlite3", "usr/bin/sqlite3")
	if err != nil {
		return Image{}, err
	}
	files["bin/workload"] = burden
	base := image
	image.Initrd = filepath.Join(dir, "initrd")
	return image, base.Extend(image.Initrd, files)
}
