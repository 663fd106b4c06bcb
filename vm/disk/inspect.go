package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Info is what an image file says of itself.
type Info struct {
	Format      string // as probed
	VirtualSize int64  // bytes the guest sees
	ActualSize  int64  // bytes on the host's file system
	Backing     string // the file it is based on, as a full path; empty if none
	DataFile    string // external data file of a qcow2
	Dirty       bool   // was not closed cleanly
	Corrupt     bool   // QEMU marked it as damaged
}

// Info reads an image, also one that a guest has open.
func (t Tool) Info(ctx context.Context, path string) (Info, error) {
	// "file:" keeps a name with a colon from being read as a protocol.
	output, _, err := t.run(ctx, "info", "-U", "--output=json", "file:"+path)
	if err != nil {
		return Info{}, fmt.Errorf("inspect %s: %w", path, err)
	}
	info, err := parseInfo(output)
	if err != nil {
		return Info{}, fmt.Errorf("inspect %s: %w", path, err)
	}
	if info.Backing != "" && !filepath.IsAbs(info.Backing) {
		info.Backing = filepath.Join(filepath.Dir(path), info.Backing)
	}
	return info, nil
}

func parseInfo(output []byte) (Info, error) {
	var raw struct {
		Format      string `json:"format"`
		VirtualSize int64  `json:"virtual-size"`
		ActualSize  int64  `json:"actual-size"`
		Backing     string `json:"backing-filename"`
		FullBacking string `json:"full-backing-filename"`
		Dirty       bool   `json:"dirty-flag"`
		Specific    struct {
			Data struct {
				Corrupt  bool   `json:"corrupt"`
				DataFile string `json:"data-file"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(output, &raw); err != nil {
		return Info{}, fmt.Errorf("qemu-img info said something unexpected: %w", err)
	}
	backing := raw.FullBacking
	if backing == "" {
		backing = raw.Backing
	}
	return Info{
		Format: raw.Format, VirtualSize: raw.VirtualSize, ActualSize: raw.ActualSize, Backing: backing,
		DataFile: raw.Specific.Data.DataFile, Dirty: raw.Dirty, Corrupt: raw.Specific.Data.Corrupt,
	}, nil
}

// Report is the outcome of a check.
type Report struct {
	Corruptions int64 // damage: the content cannot be trusted
	Leaks       int64 // space that is lost but harmless
}

// Check verifies the structure of an image that nothing writes. A raw image
// has none, and passes if it can be read.
func (t Tool) Check(ctx context.Context, path, format string) (Report, error) {
	if err := checkFormat(format); err != nil {
		return Report{}, fmt.Errorf("check %s: %w", path, err)
	}
	if format == "raw" {
		file, err := os.Open(path)
		if err != nil {
			return Report{}, fmt.Errorf("check disk: %w", err)
		}
		return Report{}, file.Close()
	}
	output, code, err := t.run(ctx, "check", "--output=json", "-f", format, path)
	const corrupt, leaks = 2, 3
	if err != nil && code != corrupt && code != leaks {
		return Report{}, fmt.Errorf("check %s: %w", path, err)
	}
	var raw struct {
		Corruptions int64 `json:"corruptions"`
		Leaks       int64 `json:"leaks"`
	}
	if err := json.Unmarshal(output, &raw); err != nil {
		return Report{}, fmt.Errorf("check %s: qemu-img said something unexpected: %w", path, err)
	}
	return Report{Corruptions: raw.Corruptions, Leaks: raw.Leaks}, nil
}

// Grow makes a disk larger, durably; preallocate takes the space of the new part
// now. Growing to the present size does nothing; a running guest's disk is refused,
// as QEMU itself must do that.
func (t Tool) Grow(ctx context.Context, path, format string, size int64, preallocate bool) error {
	if err := checkFormat(format); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	info, err := t.Info(ctx, path)
	if err != nil {
		return fmt.Errorf("grow disk: %w", err)
	}
	switch {
	case size < info.VirtualSize:
		return fmt.Errorf("grow %s: %w: it has %d bytes, %d were asked for", path, ErrShrink, info.VirtualSize, size)
	case size%512 != 0:
		return fmt.Errorf("grow %s: size %d is not a multiple of 512", path, size)
	case size == info.VirtualSize:
		return nil
	}
	if err := t.grow(ctx, path, format, size, preallocate); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	return Sync(path)
}

func (t Tool) grow(ctx context.Context, path, format string, size int64, preallocate bool) error {
	args := []string{"resize", "-q", "-f", format}
	if preallocate {
		args = append(args, "--preallocation=falloc")
	}
	_, _, err := t.run(ctx, append(args, path, strconv.FormatInt(size, 10))...)
	return err
}

// Remove deletes a disk. One that is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove disk: %w", err)
	}
	return nil
}

// Conflict says which of the used paths is the same file as path, by whatever
// name: links are seen through. Empty if none is. A guest must not start when
// another one's disk conflicts with its own.
func Conflict(path string, used []string) (string, error) {
	mine, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("compare disks: %w", err)
	}
	for _, other := range used {
		if filepath.Clean(other) == filepath.Clean(path) {
			return other, nil
		}
		if mine == nil {
			continue
		}
		theirs, err := os.Stat(other)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("compare disks: %w", err)
		}
		if os.SameFile(mine, theirs) {
			return other, nil
		}
	}
	return "", nil
}
