package undo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmctl/snapshot/durable"
)

// What cannot be kept for want of room leaves nothing behind: not a part of a file
// that would stay until the next Open, nor a hold that was told not to be there.
func TestNothingIsLeftOnAFullDisk(t *testing.T) {
	for name, keep := range map[string]func(*Disk) error{
		"hold":     (*Disk).Hold,
		"mark":     func(d *Disk) error { return d.Mark(2) },
		"rollback": func(d *Disk) error { return d.Rollback(1) },
	} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			for fail := 1; failed == fail-1; fail++ { // as long as there was one to fail
				path := filepath.Join(t.TempDir(), fmt.Sprint(fail))
				changes := 0
				full := durable.Files{}
				d, err := OpenWith(durable.Files{Watch: func(c durable.Change) error {
					if full.Watch == nil {
						return nil
					}
					return full.Watch(c)
				}}, path, 1<<20)
				must(t, err)
				must(t, d.Mark(1))
				must(t, d.Sync())
				before := names(t, d)
				full.Watch = func(c durable.Change) error {
					if !strings.HasPrefix(c.Path, path) || c.Kind == durable.Remove {
						return nil // to remove something takes no room
					}
					if changes++; changes == fail {
						failed++
						return syscall.ENOSPC
					}
					return nil
				}
				if err := keep(d); (err != nil) != (failed == fail) {
					t.Fatalf("change %d of %d fails, and the answer is %v", fail, changes, err)
				}
				if got := names(t, d); failed == fail && got != before {
					t.Errorf("change %d failed and left %s, there was %s", fail, got, before)
				}
				must(t, d.Close())
			}
			if failed == 0 {
				t.Error("no change was seen")
			}
		})
	}
}

func names(t *testing.T, d *Disk) string {
	t.Helper()
	entries, err := os.ReadDir(d.undoPath())
	must(t, err)
	var list []string
	for _, e := range entries {
		if e.Name() != intentName { // stays until the rollback is done
			list = append(list, e.Name())
		}
	}
	return strings.Join(list, " ")
}
