package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmctl/node/e2e/lab"
)

// TestBadInput asks live agents for what cannot be: each time a clear message,
// the right exit code, and nothing half-made left behind.
func TestBadInput(t *testing.T) {
	own := &kind{}
	shared.take(t, own, true)
	t.Cleanup(func() { shared.gone(own) })
	ctx := t.Context()
	l, err := lab.New(ctx, binary, t.Logf)
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	for _, h := range l.Hosts() {
		check(t, h.PowerOn(ctx))
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	disk := write("disk", strings.Repeat("x", 1<<20))
	_, err = l.A.CLI(ctx, "vm", "create", "first", "--disk", "path="+disk+",format=raw")
	check(t, err)
	foreign := token(t, l.B, "bank")
	_, err = l.B.CLI(ctx, "cluster", "leave")
	check(t, err)
	good := token(t, l.A, "shop")
	elsewhere := filepath.Join(dir, "r")
	shm, err := os.MkdirTemp("/dev/shm", "input-")
	check(t, err)
	defer os.RemoveAll(shm)
	ram, other := filepath.Join(shm, "m"), filepath.Join(shm, "other")
	inA := func(args ...string) func() error { return func() error { return l.A.Vmctl(ctx, args...) } }
	ask := func(h *lab.Host, args ...string) func() error {
		return func() error { _, err := h.CLI(ctx, args...); return err }
	}
	for _, test := range []struct {
		what string
		do   func() error
		exit int
		say  string
	}{
		{"an unknown field", ask(l.A, "vm", "create", "-f", write("spec", "{name: x, cpuz: 2}")), 2, `"cpuz"`},
		{"no spec at all", ask(l.A, "vm", "create", "-f", write("empty", "")), 2, "empty"},
		{"a name with a slash", ask(l.A, "vm", "create", "a/b"), 2, `"a/b"`},
		{"a name of dots", ask(l.A, "vm", "create", ".."), 2, `".."`},
		{"a name with dots", ask(l.A, "vm", "create", "../../etc"), 2, `"../../etc"`},
		{"more memory than the host has", ask(l.A, "vm", "create", "x", "--memory", moreThanAll(t)), 2, "this host has"},
		{"a missing image", ask(l.A, "vm", "create", "x", "--disk", "image=/none.qcow2"), 2, "/none.qcow2"},
		{"a missing image after a good disk", ask(l.A, "vm", "create", "x", "--disk", "10M", "--disk", "image=/none"), 2, "/none"},
		{"a disk in use", ask(l.A, "vm", "create", "x", "--disk", "path="+disk+",format=raw"), 4, "in use"},
		{"a disk in use, started at once", ask(l.A, "vm", "create", "x", "--start", "--disk", "path="+disk+",format=raw"), 4, "in use"},
		{"a name in use", ask(l.A, "vm", "create", "first"), 4, "first"},
		{"no such guest", ask(l.A, "vm", "start", "none"), 3, `"none"`},
		{"no token", ask(l.B, "cluster", "join", l.A.Addr+":7440", "--token", "hello"), 2, "token"},
		{"half a token", ask(l.B, "cluster", "join", l.A.Addr+":7440", "--token", good[:len(good)-5]), 2, "token"},
		{"a peer with another cluster's certificate", ask(l.B, "cluster", "join", l.A.Addr+":7440", "--token", foreign), 6, "certificate"},
		{"a witness that is none", ask(l.A, "witness", "add", l.B.Addr+":7440", "--token", good), 2, "witness token"},
		{"nobody there", ask(l.B, "cluster", "join", l.A.Addr+":7999", "--token", good), 5, "cannot be reached"},
		{"a second agent on the state directory", inA("node", "run", "--name", "a", "--state-dir", l.A.StateDir(), "--runtime-dir", elsewhere, "--ram-dir", ram, "--listen", l.A.Addr+":7999"), 4, "in use by another process"},
		{"a second agent on the runtime directory", inA("node", "run", "--name", "a", "--state-dir", elsewhere, "--runtime-dir", filepath.Dir(l.A.Socket()), "--ram-dir", other, "--listen", l.A.Addr+":7999"), 4, "--runtime-dir"},
		{"a second agent on the address", inA("node", "run", "--name", "a", "--state-dir", elsewhere, "--runtime-dir", elsewhere, "--ram-dir", other, "--listen", l.A.Addr+":7440"), 4, "--listen"},
		{"guests' memory on a disk", inA("node", "run", "--name", "a", "--state-dir", elsewhere, "--runtime-dir", elsewhere, "--ram-dir", "/proc/ram"), 2, "not on a tmpfs"},
		{"a second witness on the state directory", inA("witness", "run", "--state-dir", l.W.StateDir(), "--listen", l.A.Addr+":7998"), 4, "in use by another process"},
		{"the agent is not there", inA("--socket", elsewhere, "vm", "ls"), 5, elsewhere},
	} {
		before := left(t, l)
		err := test.do()
		var exit *exec.ExitError
		switch {
		case !errors.As(err, &exit):
			t.Errorf("%s: %v", test.what, err)
		case exit.ExitCode() != test.exit, !strings.Contains(err.Error(), test.say), strings.Contains(err.Error(), "goroutine "):
			t.Errorf("%s: exit code %d, want %d and %q: %v", test.what, exit.ExitCode(), test.exit, test.say, err)
		}
		if after := left(t, l); !slices.Equal(before, after) {
			t.Errorf("%s: files before %v, after %v", test.what, before, after)
		}
	}
	if _, err := os.Stat(ram); err == nil {
		t.Errorf("the agent that was refused made %s", ram)
	}
	out, err := l.A.CLI(ctx, "vm", "ls")
	check(t, err)
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, "first") {
		t.Errorf("after all that: %s", out)
	}
	usedToken(t, l, good)
}

// usedToken joins with a token that was kept through all the refusals, and then
// again with the same.
func usedToken(t *testing.T, l *lab.Lab, good string) {
	t.Helper()
	_, err := l.A.CLI(t.Context(), "vm", "rm", "first")
	check(t, err)
	join := []string{"cluster", "join", l.A.Addr + ":7440", "--token", good}
	_, err = l.B.CLI(t.Context(), join...)
	check(t, err)
	_, err = l.B.CLI(t.Context(), "cluster", "leave")
	check(t, err)
	_, err = l.B.CLI(t.Context(), join...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 6 || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a used token: %v", err)
	}
}

// token makes a host's cluster and a token for it.
func token(t *testing.T, h *lab.Host, cluster string) string {
	t.Helper()
	_, err := h.CLI(t.Context(), "cluster", "init", cluster)
	check(t, err)
	out, err := h.CLI(t.Context(), "cluster", "token")
	check(t, err)
	return strings.TrimSpace(out)
}

// moreThanAll is a little more than the memory of this machine.
func moreThanAll(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%dM", memoryHere(t)+1)
}

// memoryHere is this machine's, in whole MiB.
func memoryHere(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	check(t, err)
	var kilobytes int
	_, err = fmt.Sscanf(string(data), "MemTotal: %d kB", &kilobytes)
	check(t, err)
	return kilobytes / 1024
}

// left lists the hosts' files, directories too.
func left(t *testing.T, l *lab.Lab) (list []string) {
	t.Helper()
	for _, root := range []string{l.Dir, l.A.RAMDir(), l.B.RAMDir()} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			list = append(list, path)
			return err
		})
		check(t, err)
	}
	return list
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
