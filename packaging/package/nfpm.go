package packages

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The packager, fixed: another one may make other bytes.
const (
	nfpmModule  = "github.com/goreleaser/nfpm/v2/cmd/nfpm"
	nfpmVersion = "v2.45.0"
)

// nfpm is the path of the packager, built at the first use.
func nfpm(ctx context.Context, root string, log io.Writer) (string, error) {
	dir := filepath.Join(root, ".cache", "nfpm-"+nfpmVersion)
	program := filepath.Join(dir, "nfpm")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintf(log, "building nfpm %s, once\n", nfpmVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of nfpm: %w", err)
	}
	// Renamed into place, for another build may do the same just now.
	fresh, err := os.MkdirTemp(dir, "new")
	if err != nil {
		return "", fmt.Errorf("make the cache of nfpm: %w", err)
	}
	defer os.RemoveAll(fresh)
	cmd := exec.CommandContext(ctx, "go", "install", nfpmModule+"@"+nfpmVersion)
	cmd.Dir = fresh
	// A tool for this machine, whatever the product is built for.
	cmd.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=-trimpath "+undebugged, "GOOS=", "GOARCH=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install nfpm %s: %w: %s", nfpmVersion, err, lastLine(out))
	}
	if err := os.Rename(filepath.Join(fresh, "nfpm"), program); err != nil {
		return "", fmt.Errorf("install nfpm: %w", err)
	}
	return program, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
