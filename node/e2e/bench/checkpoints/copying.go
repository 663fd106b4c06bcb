package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// copying measures how fast memory is copied in a pause, beside a plain copy.
func (b *bench) copying(ctx context.Context) error {
	program := b.path("memory.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-o", program, "vmctl/snapshot/memory")
	build.Dir, build.Stderr = b.root, os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "-test.run", "^$", "-test.bench", "^BenchmarkPause$", "-test.benchtime", "21x")
	cmd.Stderr = os.Stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = eachResult(lines, func(name string, values map[string]float64) error {
		return b.keep(Sample{Of: ofCopy, Case: name, Copied: values["GB/s-pause"], Memcpy: values["GB/s-memcpy"], Pages: values["GB/s-same-pages"]})
	})
	return errors.Join(err, cmd.Wait())
}

// eachResult calls each for every benchmark's result in the output of a test
// program, with the values by their units.
func eachResult(from io.Reader, each func(name string, values map[string]float64) error) error {
	found := 0
	for lines := bufio.NewScanner(from); ; {
		if !lines.Scan() {
			if found == 0 {
				return errors.Join(errors.New("no benchmark has a result"), lines.Err())
			}
			return lines.Err()
		}
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		values := map[string]float64{}
		for i := 2; i+1 < len(words); i += 2 {
			value, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return fmt.Errorf("read %q: %w", lines.Text(), err)
			}
			values[words[i+1]] = value
		}
		_, name, _ := strings.Cut(words[0], "/")
		if at := strings.LastIndexByte(name, '-'); at > 0 { // the number of processors
			name = name[:at]
		}
		found++
		if err := each(name, values); err != nil {
			return err
		}
	}
}
