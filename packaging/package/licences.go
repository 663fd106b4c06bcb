package packages

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// thirdParty is the licences of everything that is linked into the program, which
// most of them ask to be handed on.
func thirdParty(ctx context.Context, root string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", ".")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), target...)
	listed, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the libraries that are linked: %w", err)
	}
	goroot, err := output(ctx, root, "go", "env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	directory, version, _ := strings.Cut(goroot, "\n")
	modules := append(strings.Split(strings.TrimSpace(string(listed)), "\n"), "Go "+version+" "+directory)
	slices.Sort(modules)
	var notices bytes.Buffer
	for _, module := range slices.Compact(modules) {
		parts := strings.SplitN(module, " ", 3)
		if len(parts) != 3 {
			continue // of the standard library, or of the product
		}
		text, err := licence(parts[2])
		if err != nil {
			return nil, fmt.Errorf("licence of %s: %w", parts[0], err)
		}
		fmt.Fprintf(&notices, "%s\n%s %s\n\n%s\n", strings.Repeat("=", 78), parts[0], parts[1], bytes.TrimSpace(text))
	}
	return notices.Bytes(), nil
}

// licence is the text of all files in dir that are licences or notices.
func licence(dir string) ([]byte, error) {
	var text []byte
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := strings.ToUpper(entry.Name())
		if !entry.Type().IsRegular() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		text = append(append(text, data...), '\n')
	}
	if text == nil {
		return nil, fmt.Errorf("none in %s", dir)
	}
	return text, nil
}
