package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vmctl/packaging/testguest"
)

// disksOf is where the host has a guest's disks, whoever wrote them last.
func (h *Host) disksOf(uuid string) string {
	return filepath.Join(h.StateDir(), "guests", uuid, "disks")
}

// VerifyDisks looks at a guest's disks on this host, where it does not run: see
// checkDisks.
func (h *Host) VerifyDisks(ctx context.Context, uuid string) (string, error) {
	return h.verify(ctx, func(dir string) error { return h.copyDisks(ctx, uuid, dir) })
}

// VerifyRunning looks at the disks of the test guest, which runs on this host, as
// they are at one instant: it is paused while they are copied.
func (h *Host) VerifyRunning(ctx context.Context, uuid string) (string, error) {
	return h.verify(ctx, func(dir string) error {
		if _, err := h.CLI(ctx, "vm", "pause", GuestName); err != nil {
			return err
		}
		err := h.copyDisks(ctx, uuid, dir)
		_, failed := h.CLI(context.WithoutCancel(ctx), "vm", "unpause", GuestName)
		return errors.Join(err, failed)
	})
}

func (h *Host) verify(ctx context.Context, copy func(dir string) error) (string, error) {
	dir, err := os.MkdirTemp("", "disks-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, h.Name)
	if err := copy(dir); err != nil {
		return "", err
	}
	found, err := checkDisks(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("the guest's disks on host %s: %w", h.Name, err)
	}
	return found, nil
}

func (h *Host) copyDisks(ctx context.Context, uuid, dir string) error {
	out, err := exec.CommandContext(ctx, "cp", "-r", "--sparse=always", h.disksOf(uuid), dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy the disks of host %s: %w: %s", h.Name, err, out)
	}
	return nil
}

// checkDisks looks at copies of the test guest's disks: a qcow2 image must be
// sound, the file system on the first clean after its journal was replayed, and
// the records on each one unbroken chain. It returns what it found in words.
func checkDisks(ctx context.Context, dir string) (found string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var words []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			continue // undo logs
		}
		if filepath.Ext(path) == ".qcow2" {
			raw, said, err := checkQcow2(ctx, path)
			if err != nil {
				return "", err
			}
			path, words = raw, append(words, said)
		}
		check := testguest.VerifyLog
		if strings.HasPrefix(e.Name(), "disk0.") {
			check = testguest.VerifyDisk
		}
		said, err := check(ctx, path)
		if err != nil {
			return "", err
		}
		words = append(words, e.Name()+": "+said)
	}
	if len(words) == 0 {
		return "", fmt.Errorf("there are no disks in %s", dir)
	}
	return strings.Join(words, "; "), nil
}

// checkQcow2 has qemu-img check an image, and gives its content as a raw one.
// Clusters that nothing refers to are allowed: QEMU writes a cluster's count
// before what refers to it, so that a power cut between the two loses room but
// never data. Anything else is not.
func checkQcow2(ctx context.Context, path string) (raw, found string, err error) {
	// Its exit status is 3 for leaks, and anything else but 0 is seen below.
	out, failed := exec.CommandContext(ctx, "qemu-img", "check", "--output=json", "-f", "qcow2", path).Output()
	var report struct {
		CheckErrors int `json:"check-errors"`
		Corruptions int `json:"corruptions"`
		Leaks       int `json:"leaks"`
		Allocated   int `json:"allocated-clusters"`
	}
	var exit *exec.ExitError
	if failed != nil && !(errors.As(failed, &exit) && exit.ExitCode() == 3) {
		return "", "", fmt.Errorf("qemu-img check %s: %w: %s", path, failed, out)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return "", "", fmt.Errorf("qemu-img check %s: %w", path, err)
	}
	if report.CheckErrors+report.Corruptions > 0 {
		return "", "", fmt.Errorf("qemu-img check %s: %s", path, out)
	}
	raw = strings.TrimSuffix(path, ".qcow2") + ".converted"
	if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("read %s: %w: %s", path, err, out)
	}
	return raw, fmt.Sprintf("qemu-img check: sound, %d clusters leaked of %d", report.Leaks, report.Allocated), nil
}
