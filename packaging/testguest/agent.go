package testguest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// agentPath is where the guest has its agent.
const agentPath = "usr/sbin/qemu-ga"

// fetchAgent gets Debian's qemu-guest-agent; QEMU's own package brings along what it needs.
func fetchAgent(ctx context.Context, dir string) (map[string]string, error) {
	return fetchProgram(ctx, dir, "qemu-guest-agent", agentPath)
}

// fetchProgram gets a program out of a package of Debian's, and the libraries it
// needs, which must be installed here: paths in the guest and files here.
func fetchProgram(ctx context.Context, dir, name, path string) (map[string]string, error) {
	if err := run(ctx, "", nil, "mkdir", "-p", dir); err != nil {
		return nil, err
	}
	if err := run(ctx, dir, nil, "apt-get", "download", "-q", name); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return nil, fmt.Errorf("download %s: %d packages arrived: %w", name, len(debs), err)
	}
	root := filepath.Join(dir, "root")
	if err := run(ctx, "", nil, "dpkg-deb", "-x", debs[0], root); err != nil {
		return nil, err
	}
	program := filepath.Join(root, path)
	out, err := output(ctx, "", nil, "ldd", program)
	if err != nil {
		return nil, err
	}
	files := map[string]string{path: program}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s needs a library that is not here: %s", name, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				files[word[1:]] = word
				break
			}
		}
	}
	return files, nil
}
