package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// FindRoot is the module's directory that the working directory is in.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod here or above: run this inside the sources")
		}
	}
	return "", fmt.Errorf("find the sources: %w", err)
}

// sourceDate is the time that packages get: SOURCE_DATE_EPOCH, else that of the
// last commit, else (sources without git) the first that every archive can have.
func sourceDate(ctx context.Context, root string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := output(ctx, root, "git", "log", "-1", "--format=%ct")
		if err != nil {
			return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), nil
		}
		text = out
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// describe is what git calls these sources.
func describe(ctx context.Context, root string) string {
	if out, err := output(ctx, root, "git", "describe", "--tags", "--always", "--dirty"); err == nil && out != "" {
		return out
	}
	return "0.0.0"
}

// output runs a program in dir; the error has what it said.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
