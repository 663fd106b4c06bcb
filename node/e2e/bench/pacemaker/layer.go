package pacemaker

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"vmctl/node/e2e/lab"
)

//go:embed files
var files embed.FS

// fill is a file of files/ with its words in capitals replaced.
func fill(name string, words ...string) (string, error) {
	data, err := files.ReadFile("files/" + name)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer(words...).Replace(string(data)), nil
}

// writeLayer writes what a host has beyond its packages.
func (p *Pair) writeLayer(h *lab.Host) error {
	fence, err := fill("fence_lab")
	if err != nil {
		return err
	}
	upper := filepath.Join(h.StateDir(), "upper")
	for path, text := range map[string]string{
		"etc/hostname": h.Name + "\n",
		"etc/hosts":    fmt.Sprintf("127.0.0.1 localhost\n%s a\n%s b\n", p.A.Addr, p.B.Addr),
		// In a container libvirt cannot give the guest to another user, nor label it.
		"etc/libvirt/qemu.conf": "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\n",
		// libvirtd ends when it has had nothing to do for two minutes: then a
		// takeover would wait for its start.
		"etc/default/libvirtd": "LIBVIRTD_ARGS=\"\"\n",
		"usr/sbin/fence_lab":   fence,
	} {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "usr/sbin/") {
			mode = 0o755
		}
		if err := write(filepath.Join(upper, path), text, mode); err != nil {
			return err
		}
	}
	// One file for both, as on shared storage: it changes with the timing.
	link := filepath.Join(upper, "etc/corosync/corosync.conf")
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink(shared+"/corosync.conf", link)
}

// Timing of corosync's membership.
type Timing string

// Timings that are measured.
const (
	Defaults Timing = ""
	// Tuned is what people set on a quiet network of their own: a host is lost
	// after one second without a word, and 1.2 s are spent to agree on it.
	Tuned Timing = "\ttoken: 1000\n\tconsensus: 1200\n"
)

// writeConfig writes the cluster's configuration with a timing.
func (p *Pair) writeConfig(timing Timing) error {
	text, err := fill("corosync.conf", "TIMING", string(timing), "ADDR_a", p.A.Addr, "ADDR_b", p.B.Addr)
	if err != nil {
		return err
	}
	return write(filepath.Join(p.shared, "corosync.conf"), text, 0o644)
}

// writeGuest puts the guest on the shared directory.
func (p *Pair) writeGuest(guest lab.GuestFiles) error {
	for from, to := range map[string]string{guest.Kernel: "kernel", guest.Initrd: "initrd", guest.Disk: "disk.raw"} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.shared, to), data, 0o644); err != nil {
			return err
		}
	}
	text, err := fill("guest.xml", "GUEST", lab.GuestName, "UUID", UUID, "KERNEL_LINE", lab.BenchLine())
	if err != nil {
		return err
	}
	return write(filepath.Join(p.shared, "guest.xml"), text, 0o644)
}

func write(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}
