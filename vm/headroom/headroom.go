package headroom

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// System is where the kernel's files are; the zero System is this host.
type System struct{ Root string }

// Available is how many bytes can still be had. It says no less than zero.
func (s System) Available() (int64, error) {
	data, err := os.ReadFile(s.path("/proc/meminfo"))
	if err != nil {
		return 0, fmt.Errorf("find out how much memory is left: %w", err)
	}
	kilobytes, ok := field(string(data), "MemAvailable:")
	if !ok {
		return 0, fmt.Errorf("find out how much memory is left: %s has no MemAvailable", s.path("/proc/meminfo"))
	}
	left := kilobytes << 10
	for _, g := range s.groups() {
		if has, bound := g.left(); bound {
			left = min(left, has)
		}
	}
	return max(0, left), nil
}

func (s System) path(name string) string { return filepath.Join("/", s.Root, name) }

// group is one control group with its files' names.
type group struct{ dir, limit, usage, cache string }

// groups are this process's memory group and all above it. None is bound to exist:
// a container may have them mounted elsewhere, and sees those above it not at all.
func (s System) groups() (list []group) {
	data, _ := os.ReadFile(s.path("/proc/self/cgroup"))
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		names := group{limit: "memory.max", usage: "memory.current", cache: "inactive_file"}
		top := "/sys/fs/cgroup"
		switch {
		case !ok || !filepath.IsAbs(path):
			continue
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			top, names = "/sys/fs/cgroup/memory", group{limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cache: "total_inactive_file"}
		case controllers != "":
			continue
		}
		for ; ; path = filepath.Dir(path) {
			g := names
			g.dir = s.path(filepath.Join(top, path))
			list = append(list, g)
			if path == "/" {
				break
			}
		}
	}
	return list
}

// left is what may still be taken in the group; false if it has no bound.
func (g group) left() (int64, bool) {
	limit, bound := g.number(g.limit)
	usage, known := g.number(g.usage)
	if !bound || !known {
		return 0, false
	}
	stat, _ := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
	cache, _ := field(string(stat), g.cache)
	return limit - usage + cache, true
}

// number reads a file with one; "max" is none.
func (g group) number(name string) (int64, bool) {
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// field is the number after a word at the beginning of a line.
func field(text, word string) (int64, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != word {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		return n, err == nil
	}
	return 0, false
}
