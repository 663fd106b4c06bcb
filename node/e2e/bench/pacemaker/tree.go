package pacemaker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// suite is the Debian release whose packages are compared with.
const suite = "bookworm"

// packages are what a host of the pair has. Of the recommended packages none is
// needed here.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "procps", "iproute2", "qemu-system-x86", "seabios",
	"corosync", "pacemaker", "pacemaker-cli-utils", "resource-agents", "libvirt-daemon-system", "libvirt-clients",
}

// Tree makes the file system of the hosts from Debian's packages, or finds it
// in the cache. It takes about two minutes.
func Tree(ctx context.Context, cacheDir string) (string, error) {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("make the hosts' file system: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cacheDir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("make the hosts' file system: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for another maker of the hosts' file system: %w", err)
	}
	sum := sha256.Sum256([]byte(suite + " " + strings.Join(packages, ",")))
	tree := filepath.Join(cacheDir, hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	half := tree + ".half"
	if err := os.RemoveAll(half); err != nil {
		return "", fmt.Errorf("remove a half made file system: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends false",
		"--include="+strings.Join(packages, ","), suite, half)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("make the hosts' file system: %w: %s", err, out), os.RemoveAll(half))
	}
	return tree, os.Rename(half, tree)
}

// Versions says which packages of the peer are in the tree.
func Versions(ctx context.Context, tree string) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "--admindir="+filepath.Join(tree, "var/lib/dpkg"), "-W", "-f", "${Package} ${Version}, ",
		"pacemaker", "corosync", "resource-agents", "libvirt-daemon-system", "qemu-system-x86").Output()
	if err != nil {
		return "", fmt.Errorf("look up the peer's packages: %w", err)
	}
	return strings.TrimSuffix(string(out), ", "), nil
}
