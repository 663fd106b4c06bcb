package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SmallDisk gives the host a file system of its own for its state, of so many
// bytes, before its first start. It is a tmpfs, which a power cut leaves alone.
func (h *Host) SmallDisk(size int64) error { return h.mountSmall(h.StateDir(), size) }

// SmallRAM does so for its guests' memory, which a power cut empties.
func (h *Host) SmallRAM(size int64) error {
	h.ramSize = size
	return h.mountSmall(h.ram, size)
}

func (h *Host) mountSmall(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("small"+h.Name, dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("give host %s a file system of its own: %w", h.Name, err)
	}
	return nil
}

// loseRAM is what a power cut does to the memory.
func (h *Host) loseRAM() error {
	if h.ramSize == 0 {
		return os.RemoveAll(h.ram)
	}
	if err := unix.Unmount(h.ram, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("empty the memory of host %s: %w", h.Name, err)
	}
	return h.mountSmall(h.ram, h.ramSize)
}

// FillDisk takes all the room on the host's small disk; Free gives it back.
func (h *Host) FillDisk() error { return h.fill(h.StateDir()) }

// FillRAM takes all the room for its guests' memory; Free gives it back.
func (h *Host) FillRAM() error { return h.fill(h.ram) }

// LeaveRAM takes all but so many bytes of the room for its guests' memory.
func (h *Host) LeaveRAM(bytes int64) error {
	if err := h.FillRAM(); err != nil {
		return err
	}
	info, err := os.Stat(ballast(h.ram))
	if err != nil {
		return err
	}
	return os.Truncate(ballast(h.ram), max(0, info.Size()-bytes))
}

func (h *Host) fill(dir string) error {
	file, err := os.OpenFile(ballast(dir), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil {
		return err
	}
	if dir == h.ram && h.ramSize == 0 || fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("host %s has no file system of its own to fill at %s", h.Name, dir)
	}
	// What room there is changes as the guest writes.
	for fs.Bavail > 0 {
		err := unix.Fallocate(int(file.Fd()), 0, 0, int64(fs.Bavail)*fs.Bsize)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("fill %s of host %s: %w", dir, h.Name, err)
		}
		if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil {
			return err
		}
	}
	return nil
}

// Free ends FillDisk and FillRAM.
func (h *Host) Free() error {
	var failed error
	for _, dir := range []string{h.StateDir(), h.ram} {
		if err := os.Remove(ballast(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func ballast(dir string) string { return filepath.Join(dir, "ballast") }
