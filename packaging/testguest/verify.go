package testguest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"vmctl/packaging/testguest/work"
)

// LogName is the file of records on the guest's first disk.
const LogName = "log"

// VerifyDisk looks at a raw image of the guest's first disk, on a copy: the
// journal is replayed, the file system must be clean, and the records one
// unbroken chain. It returns what it found in words.
func VerifyDisk(ctx context.Context, image string) (string, error) {
	dir, err := os.MkdirTemp("", "verify-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	disk, log := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	if err := run(ctx, "", nil, "cp", "--sparse=always", image, disk); err != nil {
		return "", err
	}
	// Exit status 1 says that something was done: the journal was replayed.
	if out, err := exec.CommandContext(ctx, "e2fsck", "-y", "-E", "journal_only", disk).CombinedOutput(); err != nil {
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
			return "", fmt.Errorf("replay the journal of %s: %w: %s", image, err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, "e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: the file system is not clean: %w: %s", image, err, out)
	}
	if err := run(ctx, "", nil, "debugfs", "-R", "dump /"+LogName+" "+log, disk); err != nil {
		return "", err
	}
	found, err := VerifyLog(ctx, log)
	if err != nil {
		return "", fmt.Errorf("%s: %w", image, err)
	}
	return "file system clean, " + found, nil
}

// VerifyLog looks at a log of the workload, a file or the whole of a further
// disk: its records must be one unbroken chain.
func VerifyLog(_ context.Context, log string) (string, error) {
	content, err := os.ReadFile(log)
	if err != nil {
		return "", fmt.Errorf("there is no log of the workload: %w", err)
	}
	history, err := work.ReadHistory(content[:min(len(content), work.LogSize)])
	if err != nil {
		return "", fmt.Errorf("%s: %w", log, err)
	}
	if history.Records == 0 {
		return "", fmt.Errorf("%s: the log is empty", log)
	}
	return fmt.Sprintf("%d records unbroken up to record %d (counter %d, boot %d)",
		history.Records, history.Last.Sequence, history.Last.Counter, history.Last.Boot), nil
}
