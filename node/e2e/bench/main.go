package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vmctl/node/e2e/bench/samples"
	"vmctl/node/e2e/lab"
)

func main() {
	samples.Main("bench", run)
}

func run(ctx context.Context) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	binary, files, err := lab.Build(ctx, root, filepath.Join(root, "dist"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "bench"), 0o755); err != nil {
		return err
	}
	table, err := idle(ctx, binary, files)
	if err != nil {
		return err
	}
	fmt.Print(table)
	return os.WriteFile(filepath.Join(root, "bench", "idle.md"), []byte(table), 0o644)
}

// inLab runs measure in a lab of its own.
func inLab(ctx context.Context, binary string, measure func(*lab.Lab) error) error {
	l, err := lab.New(ctx, binary, func(string, ...any) {})
	if err != nil {
		return err
	}
	return errors.Join(measure(l), l.Close())
}
