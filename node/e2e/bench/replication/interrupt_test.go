package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchVariable makes this test's program the bench.
const benchVariable = "VMCTL_BENCH_ITSELF"

func TestMain(m *testing.M) {
	if os.Getenv(benchVariable) != "" { // its children, too, which have a role
		main()
		return
	}
	os.Exit(m.Run())
}

// TestInterrupted: the bench ends soon, with all that it started, when it alone is
// told to, whatever it does at that moment.
func TestInterrupted(t *testing.T) {
	for i, when := range []string{"", armNone, armTwice, armStock, armCopy, armOurs} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-part", partBlocks, "-size", "8", "-rounds", "1000", "-turn", "20ms", "-dir", dir, "-out", filepath.Join(dir, "page"))
		cmd.Env = append(os.Environ(), benchVariable+"="+dir)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// With the first load of a way done it is at the next; with none, it begins.
		lines := bufio.NewScanner(out)
		for when != "" && lines.Scan() && !strings.Contains(lines.Text(), ", "+when+", ") {
		}
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2]
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(40*time.Second, func() {
			t.Errorf("in %q: it does not end", when)
			_ = cmd.Process.Kill()
		})
		for lines.Scan() {
		}
		err = cmd.Wait()
		late.Stop()
		if err == nil {
			t.Errorf("in %q: it says that it is done", when)
		}
		if when != "" && strings.Contains(said.String(), "killed") { // before its first turn there is no better way
			t.Errorf("in %q: a child did not end by itself:\n%s", when, &said)
		}
		if left := withVariable(t, benchVariable+"="+dir); len(left) > 0 {
			t.Errorf("in %q: left are %q", when, left)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "bench-replication-*")); err != nil || len(left) > 0 {
			t.Errorf("in %q: left are %q, %v", when, left, err)
		}
	}
}

// withVariable lists the processes that were started with a variable.
func withVariable(t *testing.T, variable string) (list []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if data, _ := os.ReadFile(path); strings.Contains("\x00"+string(data)+"\x00", "\x00"+variable+"\x00") {
			list = append(list, filepath.Dir(path))
		}
	}
	return list
}
