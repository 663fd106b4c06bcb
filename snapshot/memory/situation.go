package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Allowed implements Dirty. A bit is lost with its page table entry, and a
// write past QEMU's mapping sets none:
//   - memory must not be swapped out and read back: no swap, or locked;
//   - nobody else maps the file to write (vhost-user), no device does (VFIO);
//   - no huge pages, whose one bit is split and collapsed by the kernel;
//   - QEMU has the file in exactly one mapping.
//
// A balloon and free-page reporting punch holes that look clean once they are
// read again; vmctl's guests have neither, and the audit would see it.
func (t *Tracker) Allowed() error {
	area, err := t.area()
	if err != nil {
		return err
	}
	deep := t.checks%deepEvery == 0
	t.checks++
	swap, err := hasSwap("/proc/swaps")
	if err != nil {
		return err
	}
	if !swap && !deep {
		return nil
	}
	smaps, err := os.ReadFile(t.proc + "smaps")
	if err != nil {
		return fmt.Errorf("look at QEMU's memory: %w", err)
	}
	if err := checkSmaps(smaps, area, swap); err != nil || !deep {
		return err
	}
	if err := t.checkDevices(); err != nil {
		return err
	}
	return t.checkWriters()
}

// area is one line of /proc/PID/maps.
type area struct {
	start, end uint64
	perms      string
	device     uint64
	inode      uint64
}

// area finds the one mapping of the RAM file.
func (t *Tracker) area() (area, error) {
	maps, err := os.ReadFile(t.proc + "maps")
	if err != nil {
		return area{}, fmt.Errorf("look at QEMU's mappings: %w", err)
	}
	if len(maps) == 0 {
		return area{}, fmt.Errorf("look at QEMU's mappings: %w", os.ErrProcessDone)
	}
	found := areasOf(maps, t.file.Dev, t.file.Ino)
	if len(found) != 1 {
		return area{}, fmt.Errorf("QEMU has the guest's memory in %d mappings, not in one: %w", len(found), ErrSituation)
	}
	if a := found[0]; a.end-a.start != t.size || a.perms[1] != 'w' || a.perms[3] != 's' {
		return area{}, fmt.Errorf("QEMU maps %d bytes of the guest's %d (%s): %w", a.end-a.start, t.size, a.perms, ErrSituation)
	}
	return found[0], nil
}

// areasOf gives the mappings of a file.
func areasOf(maps []byte, device, inode uint64) (found []area) {
	number := strconv.AppendUint([]byte(" "), inode, 10)
	for line := range bytes.Lines(maps) {
		if !bytes.Contains(line, number) {
			continue // in a pause every microsecond counts
		}
		if a, ok := parseArea(string(line)); ok && a.device == device && a.inode == inode {
			found = append(found, a)
		}
	}
	return found
}

// parseArea reads "start-end perms offset major:minor inode path".
func parseArea(line string) (a area, ok bool) {
	words := strings.Fields(line)
	if len(words) < 5 || len(words[1]) != 4 {
		return a, false
	}
	start, end, _ := strings.Cut(words[0], "-")
	major, minor, _ := strings.Cut(words[3], ":")
	var numbers [5]uint64
	for i, word := range []string{start, end, major, minor, words[4]} {
		base := 16
		if i == 4 {
			base = 10
		}
		var err error
		if numbers[i], err = strconv.ParseUint(word, base, 64); err != nil {
			return a, false
		}
	}
	device := unix.Mkdev(uint32(numbers[2]), uint32(numbers[3]))
	return area{numbers[0], numbers[1], words[1], device, numbers[4]}, true
}

// hasSwap reads /proc/swaps: a heading, then a line a device.
func hasSwap(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without swapping
	}
	if err != nil {
		return false, fmt.Errorf("look for swap: %w", err)
	}
	return bytes.Count(bytes.TrimSpace(data), []byte("\n")) > 0, nil
}

// checkSmaps looks at one mapping in /proc/PID/smaps.
func checkSmaps(smaps []byte, want area, swap bool) error {
	inside, seen := false, map[string]string{}
	for line := range strings.Lines(string(smaps)) {
		if a, ok := parseArea(line); ok {
			inside = a.start == want.start
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok && inside {
			seen[name] = strings.TrimSpace(value)
		}
	}
	for name, good := range map[string]string{"KernelPageSize": "4 kB", "ShmemPmdMapped": "0 kB", "FilePmdMapped": "0 kB", "THPeligible": "0"} {
		if value, ok := seen[name]; ok && value != good {
			return fmt.Errorf("the guest's memory is in huge pages, or may be (%s: %s): %w", name, value, ErrSituation)
		}
	}
	if seen["KernelPageSize"] == "" {
		return fmt.Errorf("the kernel does not describe QEMU's memory: %w", ErrSituation)
	}
	if swap && !strings.Contains(" "+seen["VmFlags"]+" ", " lo ") {
		return fmt.Errorf("the host has swap and the guest's memory is not locked: %w", ErrSituation)
	}
	return nil
}

// checkDevices looks for devices that write to memory by themselves.
func (t *Tracker) checkDevices() error {
	fds, err := os.ReadDir(t.proc + "fd")
	if err != nil {
		return fmt.Errorf("look at QEMU's files: %w", err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(t.proc + "fd/" + fd.Name())
		if err != nil {
			continue // closed meanwhile
		}
		for _, device := range []string{"/dev/vfio/", "/dev/iommu", "/dev/vhost-vdpa"} {
			if strings.HasPrefix(target, device) {
				return fmt.Errorf("QEMU gives the guest's memory to a device (%s): %w", target, ErrSituation)
			}
		}
	}
	return nil
}

// checkWriters looks for another process that may write to the file.
func (t *Tracker) checkWriters() error {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	self, err := t.dir.Stat()
	if err != nil {
		return fmt.Errorf("look at QEMU: %w", err)
	}
	for _, dir := range all {
		if info, err := os.Stat(dir); err != nil || os.SameFile(info, self) {
			continue
		}
		maps, err := os.ReadFile(filepath.Join(dir, "maps"))
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("look at the mappings of %s: %w", dir, err)
		}
		if err != nil {
			continue // it has ended
		}
		for _, a := range areasOf(maps, t.file.Dev, t.file.Ino) {
			if strings.Contains(a.perms, "w") {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				return fmt.Errorf("process %d maps the guest's memory too and may write to it: %w", pid, ErrSituation)
			}
		}
	}
	return nil
}
