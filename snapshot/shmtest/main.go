package shmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const pattern = "/dev/shm/vmctl-test-%d-"

// TempDir is a directory on tmpfs for one test.
func TempDir(t testing.TB) string {
	t.Helper()
	once.Do(sweep)
	dir, err := os.MkdirTemp("/dev/shm", filepath.Base(fmt.Sprintf(pattern, os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

var once sync.Once

// Main runs the tests and gives the exit code for the process.
func Main(m *testing.M) int {
	once.Do(sweep)
	dir, err := os.MkdirTemp("/dev/shm", filepath.Base(fmt.Sprintf(pattern, os.Getpid())))
	if err != nil { // no tmpfs here: slower, and all the same
		return m.Run()
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// sweep removes the directories of processes that are gone.
func sweep() {
	left, _ := filepath.Glob("/dev/shm/vmctl-test-*-*")
	for _, dir := range left {
		var pid int
		if _, err := fmt.Sscanf(dir, pattern, &pid); err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			_ = os.RemoveAll(dir)
		}
	}
}
