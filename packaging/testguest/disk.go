package testguest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmctl/packaging/testguest/work"
)

// diskSize is the size of the disk in bytes.
const diskSize = 64 << 20

// block is a block of the disk's file system.
const block = 4096

// makeDisk makes the disk's image: a file system with an empty log. The log has its
// blocks already, all zero, or each guest would write them when it boots. What
// mkfs.ext4 copies in has no blocks where it is zero; so it gets others to copy.
func makeDisk(ctx context.Context, dir, disk string) error {
	full := bytes.Repeat([]byte("a block of log! "), block/16)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, LogName), bytes.Repeat(full, work.LogSize/block), 0o644),
		os.WriteFile(disk, nil, 0o644), os.Truncate(disk, diskSize)); err != nil {
		return err
	}
	if err := run(ctx, "", nil, "mkfs.ext4", "-q", "-F", "-b", fmt.Sprint(block), "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", dir, disk); err != nil {
		return err
	}
	return empty(disk, full, work.LogSize/block)
}

// empty makes those of a file's blocks zero that are like one, which has to be so many.
func empty(path string, like []byte, want int) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found := 0
	for at := 0; at < len(content); at += block {
		if !bytes.Equal(content[at:at+block], like) {
			continue
		}
		found++
		if err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), block); err != nil {
			return fmt.Errorf("empty the log on %s: %w", path, err)
		}
	}
	if found != want {
		return fmt.Errorf("the log on %s has %d blocks, not %d", path, found, want)
	}
	return nil
}
