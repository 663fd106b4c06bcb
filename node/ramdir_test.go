package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/node/api"
)

// TestRAMDirIsInMemory: a directory for guests' memory that is on no tmpfs is
// refused, also one that is not there yet, and nothing is made.
func TestRAMDirIsInMemory(t *testing.T) {
	root, err := os.MkdirTemp("/dev/shm", "ram-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	link := filepath.Join(root, "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	for dir, good := range map[string]bool{
		root: true, filepath.Join(root, "a/b/c"): true, "/proc": false, "/proc/vmctl/ram": false, link: false, filepath.Join(link, "x"): false,
	} {
		err := checkRAMDir(dir, slog.New(slog.DiscardHandler))
		if good != (err == nil) {
			t.Errorf("%s: %v", dir, err)
		}
		if err == nil {
			continue
		}
		if e := api.AsError(err); e.Code != api.Usage || !strings.Contains(e.Message, "tmpfs") || !strings.Contains(e.Message, dir) || e.Hint == "" {
			t.Errorf("%s: %+v", dir, e)
		}
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestRAMDirInUse: an agent does not leave guests alone that have their memory in such
// a directory, as earlier versions let them.
func TestRAMDirInUse(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "ram-") // not on a tmpfs, other than /tmp
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, used := range []bool{false, true} {
		if used {
			if err := os.WriteFile(filepath.Join(dir, "guest.ram"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkRAMDir(dir, slog.New(slog.DiscardHandler)); (err == nil) != used {
			t.Errorf("with a guest's memory in it %t: %v", used, err)
		}
	}
}
