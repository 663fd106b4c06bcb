package headroom

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const meminfo = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    4000000 kB\n"

func TestAvailable(t *testing.T) {
	const v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
		fails bool
	}{
		"the kernel's word":  {map[string]string{"/proc/meminfo": meminfo}, 4000000 << 10, false},
		"no word":            {map[string]string{"/proc/meminfo": "MemTotal: 1 kB\n"}, 0, true},
		"no file":            {nil, 0, true},
		"groups not mounted": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/system.slice/vmctl.service\n"}, 4000000 << 10, false},
		"unbounded group": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a\n",
			v2 + "/a/memory.max": "max\n", v2 + "/a/memory.current": "5\n"}, 4000000 << 10, false},
		"bounded group": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a/b\n",
			v2 + "/a/b/memory.max": "1000000\n", v2 + "/a/b/memory.current": "900000\n", v2 + "/a/b/memory.stat": "anon 5\ninactive_file 200000\n"}, 300000, false},
		"group above it": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a/b\n",
			v2 + "/a/b/memory.max": "max\n", v2 + "/a/memory.max": "1000\n", v2 + "/a/memory.current": "400\n"}, 600, false},
		"group that is full": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a\n",
			v2 + "/a/memory.max": "1000\n", v2 + "/a/memory.current": "1400\n"}, 0, false},
		"version 1": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "4:cpu,cpuacct:/x\n3:hugetlb,memory:/a\n0::/\n",
			v1 + "/a/memory.limit_in_bytes": "5000\n", v1 + "/a/memory.usage_in_bytes": "4000\n", v1 + "/a/memory.stat": "inactive_file 1\ntotal_inactive_file 70\n",
			v1 + "/memory.limit_in_bytes": "9223372036854771712\n", v1 + "/memory.usage_in_bytes": "4000\n"}, 1070, false},
		"nonsense": {map[string]string{"/proc/meminfo": meminfo, "/proc/self/cgroup": "x\n::\n0::relative\n7:memory\n"}, 4000000 << 10, false},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			path := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := System{root}.Available()
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

// TestAvailableHere: this host says something that can be true.
func TestAvailableHere(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	got, err := System{}.Available()
	if err != nil || got <= 0 || got > int64(info.Totalram)*int64(info.Unit) {
		t.Errorf("%d of %d bytes, %v", got, info.Totalram, err)
	}
}
