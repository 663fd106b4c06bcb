package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"vmctl/vm/disk"
	"vmctl/vm/image"
)

// Create makes a guest's directory on this host: disks from nothing or from
// images, and copies of kernel and initrd. The spec is complete and valid.
// used lists the disk files of all other guests (Files). On failure, or when
// ctx ends, nothing of it is left.
func Create(ctx context.Context, s Spec, l Layout, h Host, used []string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create guest %q: %w", s.Name, err)
		}
	}()
	if err := l.Check(); err != nil {
		return err
	}
	if err := checkConflicts(s, l, Options{}, used); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.State), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(l.State, 0o700); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, l.State)
	} else if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(l.State))
		}
	}()
	if err := os.Mkdir(l.Disks(), 0o700); err != nil {
		return err
	}
	tool := disk.Tool{Path: h.QEMUImg}
	for _, d := range s.Disks {
		if err := createDisk(ctx, tool, d, l); err != nil {
			return err
		}
	}
	return copyBoot(ctx, s, l)
}

func createDisk(ctx context.Context, tool disk.Tool, d Disk, l Layout) error {
	if d.Path != "" {
		return nil
	}
	file := l.Disk(d, false)
	request := disk.Request{Path: file.Path, Format: file.Format, Size: int64(d.Size), Preallocate: d.Preallocate}
	if d.Image != "" {
		source, err := image.Inspect(ctx, tool, d.Image)
		if err != nil {
			return err
		}
		request.Image, request.ImageFormat = source.Path, source.Format
	}
	return tool.Create(ctx, request)
}

func copyBoot(ctx context.Context, s Spec, l Layout) error {
	if s.Kernel == "" {
		return nil
	}
	if err := os.Mkdir(l.Boot(), 0o700); err != nil {
		return err
	}
	for _, file := range []struct{ from, to string }{{s.Kernel, l.Kernel()}, {s.Initrd, l.Initrd()}} {
		if file.from == "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyFile(file.from, file.to); err != nil {
			return fmt.Errorf("copy %s: %w", file.from, err)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return target.Sync()
}

// Files lists the disk files of a guest on this host, for the conflict check
// of others.
func Files(s Spec, l Layout, replica bool) []string {
	var files []string
	for _, d := range s.Disks {
		files = append(files, l.Disk(d, replica).Path)
	}
	return files
}

// checkConflicts refuses a guest one of whose disks is another's, or twice its
// own, by whatever name.
func checkConflicts(s Spec, l Layout, o Options, used []string) error {
	var mine []string
	for _, path := range Files(s, l, o.Replica) {
		other, err := disk.Conflict(path, mine)
		if err == nil && other == "" {
			other, err = disk.Conflict(path, used)
		}
		if err != nil {
			return err
		}
		if other != "" {
			return fmt.Errorf("disk %s: %w: it is the same file as %s of another guest or disk", path, ErrInUse, other)
		}
		mine = append(mine, path)
	}
	return nil
}

// Remove deletes everything of a stopped guest on this host. Disks that are
// files outside its directory stay.
func Remove(l Layout) error {
	if running(l) {
		return fmt.Errorf("remove guest: %w: stop it first", ErrRunning)
	}
	if err := errors.Join(os.RemoveAll(l.Runtime), removeFile(l.RAM()), os.RemoveAll(l.State)); err != nil {
		return fmt.Errorf("remove guest: %w", err)
	}
	return nil
}
