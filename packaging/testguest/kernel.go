package testguest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kernel is Debian's cloud kernel and the modules the guest loads, in order.
type kernel struct {
	image   string
	modules []string // paths
}

// wanted are the modules by name; what they need is found out.
var wanted = []string{
	"virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "pvpanic-pci", "ext4", "button", "evdev", "softdog",
}

// fetchKernel gets the kernel that Debian's package for clouds stands for.
func fetchKernel(ctx context.Context, dir string) (k kernel, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return k, err
	}
	name, err := kernelPackage(ctx)
	if err != nil {
		return k, err
	}
	if err := run(ctx, dir, nil, "apt-get", "download", "-q", name); err != nil {
		return k, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return k, fmt.Errorf("download %s: %d packages arrived: %w", name, len(debs), err)
	}
	root := filepath.Join(dir, "root")
	if err := run(ctx, "", nil, "dpkg-deb", "-x", debs[0], root); err != nil {
		return k, err
	}
	version := strings.TrimPrefix(name, "linux-image-")
	k.image = filepath.Join(root, "boot", "vmlinuz-"+version)
	if err := run(ctx, "", nil, "depmod", "-b", root, version); err != nil {
		return k, err
	}
	k.modules, err = moduleFiles(ctx, root, version)
	return k, err
}

// kernelPackage is the package that linux-image-cloud-amd64 depends on. A fresh
// machine has no package lists yet.
func kernelPackage(ctx context.Context) (string, error) {
	for _, update := range []bool{false, true} {
		if update {
			if err := run(ctx, "", nil, "apt-get", "update", "-q"); err != nil {
				return "", err
			}
		}
		out, err := output(ctx, "", nil, "apt-cache", "depends", "--important", "linux-image-cloud-amd64")
		if err != nil && update {
			return "", err
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "linux-image-") && strings.HasSuffix(word, "-cloud-amd64") && word != "linux-image-cloud-amd64" {
				return word, nil
			}
		}
	}
	return "", errors.New("package linux-image-cloud-amd64 is not in the package lists")
}

// moduleFiles lists the modules' files, each behind what it needs. A module
// that is built into the kernel has none.
func moduleFiles(ctx context.Context, root, version string) (files []string, err error) {
	seen := map[string]bool{}
	for _, module := range wanted {
		out, err := output(ctx, "", nil, "modprobe", "-d", root, "-S", version, "--show-depends", module)
		if err != nil {
			return nil, fmt.Errorf("find module %s: %w", module, err)
		}
		for _, line := range strings.Split(string(out), "\n") {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "insmod" && !seen[words[1]] {
				seen[words[1]] = true
				files = append(files, words[1])
			}
		}
	}
	return files, nil
}
