package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// What can go wrong with an image file. Test with errors.Is.
var (
	// ErrExists: there is a file under that name; it was not touched.
	ErrExists = errors.New("file exists already")
	// ErrInUse: another guest or program has the image.
	ErrInUse = errors.New("disk is in use")
	// ErrShrink: the new size is below the present one.
	ErrShrink = errors.New("a disk only grows")
	// ErrTooLarge: the file system does not take a file of that size, however much
	// room it has.
	ErrTooLarge = errors.New("the file system cannot hold so large a file")
	// ErrFormat: not a format this package handles.
	ErrFormat = errors.New("unknown disk format")
)

// Tool is qemu-img. The zero value finds it in $PATH.
type Tool struct {
	Path string // program; empty is "qemu-img"
}

// run executes qemu-img and ends it with the context. The exit code comes back
// for commands that say something by it; any other than 0 is an error too.
func (t Tool) run(ctx context.Context, args ...string) (output []byte, code int, err error) {
	program := t.Path
	if program == "" {
		program = "qemu-img"
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Stdout, command.Stderr = &stdout, &stderr
	command.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	command.WaitDelay = 2 * time.Second
	err = command.Run()
	if ctx.Err() != nil {
		return nil, -1, fmt.Errorf("qemu-img %s: %w", args[0], ctx.Err())
	}
	if err == nil {
		return stdout.Bytes(), 0, nil
	}
	message := strings.TrimSpace(strings.ReplaceAll(stderr.String(), "qemu-img: ", ""))
	if strings.Contains(message, `Failed to get`) && strings.Contains(message, "lock") {
		err = ErrInUse
	}
	// The second is what it makes of the same error when it creates qcow2.
	if strings.Contains(message, "File too large") || strings.Contains(message, "The image size is too large") {
		err = ErrTooLarge
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if message == "" {
		return stdout.Bytes(), code, fmt.Errorf("qemu-img %s: %w", args[0], err)
	}
	return stdout.Bytes(), code, fmt.Errorf("qemu-img %s: %w: %s", args[0], err, message)
}

func checkFormat(format string) error {
	if format != "raw" && format != "qcow2" {
		return fmt.Errorf("%w %q: use raw or qcow2", ErrFormat, format)
	}
	return nil
}
