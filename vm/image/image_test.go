package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vmctl/vm/disk"
)

const mib = 1 << 20

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	raw, base, middle, top := dir+"/a.raw", dir+"/base.qcow2", dir+"/middle.qcow2", dir+"/top.qcow2"
	if err := os.WriteFile(raw, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", base, "2M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", middle) // relative
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", middle, top, "3M")
	qemuImg(t, "create", "-q", "-f", "vmdk", dir+"/a.vmdk", "1M")
	tests := []Image{
		{Path: raw, Format: "raw", Size: mib},
		{Path: base, Format: "qcow2", Size: 2 * mib},
		{Path: dir + "/a.vmdk", Format: "vmdk", Size: mib},
		{Path: top, Format: "qcow2", Size: 3 * mib, Chain: []string{middle, base}},
	}
	for _, want := range tests {
		got, err := Inspect(t.Context(), disk.Tool{}, want.Path)
		if err != nil || got.Format != want.Format || got.Size != want.Size || !slices.Equal(got.Chain, want.Chain) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	dir := t.TempDir()
	empty, fifo, orphan, loop, net, data := dir+"/empty", dir+"/fifo", dir+"/orphan", dir+"/loop", dir+"/net", dir+"/data"
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", dir+"/gone", orphan, "1M")
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", orphan, loop, "1M")
	qemuImg(t, "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", loop, loop)
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1:1/x", net, "1M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+dir+"/data.raw", data, "1M")
	tests := map[string]string{
		dir + "/gone": "no such file",
		dir:           "not a regular file",
		fifo:          "not a regular file",
		empty:         "empty",
		"image.raw":   "absolute",
		orphan:        "based on a file that cannot be used",
		loop:          "based on itself",
		net:           "based on a file that cannot be used",
		data:          "its data is in another file",
	}
	for path, want := range tests {
		_, err := Inspect(t.Context(), disk.Tool{}, path)
		if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", filepath.Base(path), err, want)
		}
	}
}

// said is what an image says of itself.
type said map[string]disk.Info

func (s said) Info(_ context.Context, path string) (disk.Info, error) {
	if info, ok := s[path]; ok {
		return info, nil
	}
	return disk.Info{}, errors.New("unreadable")
}

func TestInspectRefusesOddities(t *testing.T) {
	dir := t.TempDir()
	path := func(i int) string { return fmt.Sprintf("%s/%03d", dir, i) }
	chain := said{}
	for i := range maxChain + 10 {
		if err := os.WriteFile(path(i), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		chain[path(i)] = disk.Info{Format: "qcow2", VirtualSize: mib, Backing: path(i + 1)}
	}
	tests := map[string]struct {
		tool said
		want string
	}{
		"endless chain": {chain, "too many others"},
		"two in a loop": {said{path(0): {Format: "qcow2", VirtualSize: mib, Backing: path(1)}, path(1): {Format: "qcow2", VirtualSize: mib, Backing: path(0)}}, "based on itself"},
		"no size":       {said{path(0): {Format: "raw"}}, "no size"},
		"damaged":       {said{path(0): {Format: "qcow2", VirtualSize: mib, Corrupt: true}}, "damaged"},
		"odd format":    {said{path(0): {Format: "luks", VirtualSize: mib}}, "format luks"},
		"unreadable":    {said{}, "unreadable"},
	}
	for name, test := range tests {
		if _, err := Inspect(t.Context(), test.tool, path(0)); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestInspectEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, disk.Tool{}, path); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBad) {
		t.Errorf("error: %v", err)
	}
}
