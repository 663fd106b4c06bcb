package node

import (
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
		err := checkRAMDir(dir)
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
