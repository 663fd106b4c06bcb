package fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mostOutput = 256 << 10 // bytes kept of each output; the largest metadata has 20 KiB
	grace      = 500 * time.Millisecond
)

// environment is all that agents get: no word of this process's own reaches
// them. With PCMK_service set, for one, they would wait without bounds.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root"}

// result is how a run of an agent ended.
type result struct {
	code           int
	stdout, stderr output
}

// output keeps the beginning of what is written.
//
// The buffer is not embedded: its ReadFrom would let everything in.
type output struct {
	kept bytes.Buffer
	cut  bool
}

func (o *output) Write(b []byte) (int, error) {
	keep := min(len(b), mostOutput-o.kept.Len())
	o.cut = o.cut || keep < len(b)
	o.kept.Write(b[:keep])
	return len(b), nil
}

// run runs an agent with input on its standard input until it exits or ctx
// ends. An error means that it has no exit code of its own.
func run(ctx context.Context, path string, input []byte) (*result, error) {
	cmd := exec.Command(path)
	var r result
	cmd.Dir, cmd.Env = "/", environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &r.stdout, &r.stderr
	cmd.WaitDelay = grace // a child that left the group may hold the pipes
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := context.Cause(ctx); err != nil {
		return &r, err
	}
	// The death signal is sent when the thread that started the agent ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return &r, fmt.Errorf("start it: %w", err)
	}
	group := -cmd.Process.Pid
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		_ = syscall.Kill(group, syscall.SIGTERM) // agents log out of their device then
		select {
		case <-ended:
		case <-time.After(grace):
			_ = syscall.Kill(group, syscall.SIGKILL)
		}
	}()
	waitError := waitExit(cmd.Process.Pid)
	close(ended)
	<-watched
	// The agent is not reaped yet, so that the group's number is still its own.
	_ = syscall.Kill(group, syscall.SIGKILL)
	_ = cmd.Wait() // the exit code says it all
	if waitError != nil {
		return &r, waitError
	}
	if r.code = cmd.ProcessState.ExitCode(); r.code < 0 {
		if ctx.Err() != nil {
			return &r, fmt.Errorf("killed, it did not end in time: %w", context.Cause(ctx))
		}
		return &r, fmt.Errorf("it died: %v", cmd.ProcessState)
	}
	return &r, nil
}

// waitExit waits for the exit of a child without reaping it.
func waitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
