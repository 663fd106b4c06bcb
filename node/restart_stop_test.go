package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
)

// TestStopWhileItIsStarted: a guest that is stopped while its policy starts it again is
// stopped when that is said, not up a moment later.
func TestStopWhileItIsStarted(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	v, err := a.Create(ctx, []byte("{name: web, memory: 64M, restart: {policy: always, backoff_seconds: 0.01}}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Remove(context.Background(), "web", true) })
	if v, err = a.Act(ctx, "web", api.Start, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(v.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new QEMU", func() bool { return len(qemus(t, v.UUID, v.PID)) > 0 })
	if v, err = a.Act(ctx, "web", api.Stop, 100*time.Millisecond); err != nil || v.State != "stopped" || v.Run {
		t.Errorf("stopped: %s, wanted %v, %v", v.State, v.Run, err)
	}
	if left := qemus(t, v.UUID, 0); len(left) > 0 {
		t.Errorf("it runs: processes %v", left)
	}
}

// qemus are the processes of a guest, but for one.
func qemus(t *testing.T, uuid string, but int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		words, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(words), fmt.Sprintf("-uuid\x00%s\x00", uuid)) || strings.Contains(string(words), "guard\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && pid != but {
			pids = append(pids, pid)
		}
	}
	return pids
}
