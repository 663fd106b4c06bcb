package qmp

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// stateOpaque marks our fdsets in QEMU, for RemoveStaleFDs.
const stateOpaque = "vmctl-state"

// fdset is the path under which QEMU opens a file of the set.
func fdset(id int64) string { return fmt.Sprintf("/dev/fdset/%d", id) }

// addFD gives f to QEMU in a set of its own.
func addFD(ctx context.Context, c FileExecutor, f *os.File) (set int64, err error) {
	var added struct {
		Set int64 `json:"fdset-id"`
	}
	args := struct {
		Opaque string `json:"opaque"`
	}{stateOpaque}
	err = c.ExecuteWithFile(ctx, "add-fd", args, &added, f)
	return added.Set, err
}

// RemoveSavedFD closes QEMU's side of the file of a SaveDeviceState. Call it
// after "cont": QEMU 7.2 closes nothing while the guest is stopped, though it
// answers yes. Calling it again then does help.
func RemoveSavedFD(ctx context.Context, c Executor, set int64) error {
	return c.Execute(ctx, "remove-fd", struct {
		Set int64 `json:"fdset-id"`
	}{set}, nil)
}

// RemoveStaleFDs removes all fdsets this package has made in QEMU, on this
// connection or an earlier one, and tells how many. For an adopted guest: call it
// while the guest runs and no StateFile is in use.
func RemoveStaleFDs(ctx context.Context, c Executor) (int, error) {
	var sets []struct {
		Set int64 `json:"fdset-id"`
		FDs []struct {
			Opaque string `json:"opaque"`
		} `json:"fds"`
	}
	if err := c.Execute(ctx, "query-fdsets", nil, &sets); err != nil {
		return 0, err
	}
	removed := 0
	for _, s := range sets {
		if len(s.FDs) != 1 || s.FDs[0].Opaque != stateOpaque {
			continue
		}
		if err := RemoveSavedFD(ctx, c, s.Set); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// writeOnly opens the file behind f once more: write-only, as QEMU insists, at
// offset 0, with an offset of its own.
func writeOnly(f *os.File) (*os.File, error) {
	own, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", own.Fd())
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s for writing: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
