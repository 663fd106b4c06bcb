package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vmctl/vm/disk"
)

// ErrBad means that the file cannot become a disk.
var ErrBad = errors.New("not a usable image")

// formats are those that qemu-img tells apart and reads reliably.
var formats = []string{"raw", "qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc"}

// maxChain bounds how many images may be based on each other.
const maxChain = 64

// Image is a usable image.
type Image struct {
	Path   string
	Format string // as probed
	Size   int64  // bytes of the disk in it
	// Chain lists the files it is based on, nearest first. A copy is flat: it
	// needs none of them.
	Chain []string
}

// Inspector is what tells images apart; disk.Tool does.
type Inspector interface {
	Info(ctx context.Context, path string) (disk.Info, error)
}

// Inspect looks at the image and at everything it is based on.
func Inspect(ctx context.Context, tool Inspector, path string) (Image, error) {
	image := Image{Path: path}
	for next := path; next != ""; {
		info, err := inspectOne(ctx, tool, next)
		if err != nil {
			if next != path {
				err = fmt.Errorf("image %s is based on a file that cannot be used: %w", path, err)
			}
			return Image{}, err
		}
		if next == path {
			image.Format, image.Size = info.Format, info.VirtualSize
		} else {
			image.Chain = append(image.Chain, next)
		}
		next = info.Backing
		if slices.Contains(image.Chain, next) || next == path || len(image.Chain) > maxChain {
			return Image{}, fmt.Errorf("image %s: %w: it is based on itself, or on too many others", path, ErrBad)
		}
	}
	return image, nil
}

func inspectOne(ctx context.Context, tool Inspector, path string) (disk.Info, error) {
	if !filepath.IsAbs(path) {
		return disk.Info{}, fmt.Errorf("image %s: %w: give its absolute path", path, ErrBad)
	}
	stat, err := os.Stat(path)
	if err != nil {
		return disk.Info{}, fmt.Errorf("image: %w: %w", ErrBad, err)
	}
	if !stat.Mode().IsRegular() {
		return disk.Info{}, fmt.Errorf("image %s: %w: it is not a regular file", path, ErrBad)
	}
	if stat.Size() == 0 {
		return disk.Info{}, fmt.Errorf("image %s: %w: it is empty", path, ErrBad)
	}
	info, err := tool.Info(ctx, path)
	switch {
	case err != nil && ctx.Err() != nil:
		return disk.Info{}, fmt.Errorf("image %s: %w", path, err)
	case err != nil:
		return disk.Info{}, fmt.Errorf("image %s: %w: %w", path, ErrBad, err)
	case !slices.Contains(formats, info.Format):
		return disk.Info{}, fmt.Errorf("image %s: %w: format %s, use one of %s", path, ErrBad, info.Format, strings.Join(formats, ", "))
	case info.Corrupt:
		return disk.Info{}, fmt.Errorf("image %s: %w: it is marked as damaged, try \"qemu-img check -r all\" on a copy", path, ErrBad)
	case info.DataFile != "":
		return disk.Info{}, fmt.Errorf("image %s: %w: its data is in another file, convert it with \"qemu-img convert\" first", path, ErrBad)
	case info.VirtualSize <= 0:
		return disk.Info{}, fmt.Errorf("image %s: %w: the disk in it has no size", path, ErrBad)
	}
	return info, nil
}
