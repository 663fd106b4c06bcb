package memory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const smapsOfRAM = `55d0c0a00000-55d0c0b00000 r--p 00000000 08:01 77                        /usr/bin/qemu-system-x86_64
Size:               1024 kB
KernelPageSize:        4 kB
THPeligible:           1
VmFlags: rd mr mw me
7f1200000000-7f1210000000 rw-s 00000000 00:1a 4711                      /run/vmctl/ram/guest.ram (deleted)
Size:             262144 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Locked:                0 kB
THPeligible:           0
VmFlags: rd wr sh mr mw me ms sd
`

func TestSmaps(t *testing.T) {
	ram := areasOf([]byte(smapsOfRAM), unix.Mkdev(0, 0x1a), 4711)
	if len(ram) != 1 || ram[0].start != 0x7f1200000000 || ram[0].end != 0x7f1210000000 || ram[0].perms != "rw-s" {
		t.Fatalf("areas %+v", ram)
	}
	if none := areasOf([]byte(smapsOfRAM), unix.Mkdev(8, 1), 4711); len(none) != 0 {
		t.Errorf("a file of another file system is taken: %+v", none)
	}
	for _, test := range []struct {
		name, from, to string
		swap, good     bool
	}{
		{name: "as it should be", good: true},
		{name: "swap", swap: true},
		{name: "swap, but locked", from: "ms sd", to: "ms sd lo", swap: true, good: true},
		{name: "huge pages in use", from: "ShmemPmdMapped:        0", to: "ShmemPmdMapped:     2048"},
		{name: "huge pages possible", from: "THPeligible:           0", to: "THPeligible:           1"},
		{name: "hugetlbfs", from: "KernelPageSize:        4 kB\nMMU", to: "KernelPageSize:     2048 kB\nMMU"},
		{name: "an old kernel", from: "THPeligible:           0\n", good: true},
		{name: "nothing said", from: "KernelPageSize:        4 kB\nMMU", to: "MMU"},
	} {
		err := checkSmaps([]byte(strings.Replace(smapsOfRAM, test.from, test.to, 1)), ram[0], test.swap)
		if (err == nil) != test.good || err != nil && !errors.Is(err, ErrSituation) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestHasSwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swaps")
	for text, want := range map[string]bool{
		"Filename\tType\tSize\tUsed\tPriority\n":                                    false,
		"Filename\tType\tSize\tUsed\tPriority\n/dev/vda  partition\t65532\t0\t-2\n": true,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := hasSwap(path); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if got, err := hasSwap(path + "-missing"); err != nil || got {
		t.Errorf("no such file: %v, %v", got, err)
	}
}
