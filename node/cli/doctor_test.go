package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDoctor(t *testing.T) {
	if code, out, stderr := run("", "doctor"); code != 0 || stderr != "" || !strings.Contains(out, "QEMU") {
		t.Errorf("exit code %d, %s, %s", code, out, stderr)
	}
	t.Setenv("PATH", t.TempDir())
	code, out, stderr := run("", "doctor", "--output", "json")
	if code != 1 || !json.Valid([]byte(out)) || !strings.Contains(out, "apt install") || !strings.Contains(stderr, "cannot run guests") {
		t.Errorf("without QEMU: exit code %d, %s, %s", code, out, stderr)
	}
}
