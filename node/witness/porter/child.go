package porter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is a porter that runs.
type child struct {
	line  *line
	pid   int
	pidfd int
}

// start makes a porter's process. It ends with this one at the latest: by its end of the
// line, and, should it be stopped, by the kernel's word.
func (k *Keeper) start(listener int) (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a line to the process for handshakes: %w", err)
	}
	defer unix.Close(pair[1])
	c := &child{pidfd: -1}
	if c.line, err = newLine(pair[0]); err != nil {
		return nil, fmt.Errorf("make a line to the process for handshakes: %w", err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(null)
		c.pid, _, err = syscall.StartProcess(k.Command.Path, k.Command.Args, &syscall.ProcAttr{
			Env:   k.Command.Env,
			Files: []uintptr{uintptr(null), uintptr(null), 2, uintptr(pair[1]), uintptr(listener)},
			Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &c.pidfd},
		})
	}
	if err != nil {
		c.line.Close()
		return nil, fmt.Errorf("start the process for handshakes: %w", err)
	}
	return c, nil
}

// grace is how long a porter that has closed its line may take to end.
const grace = 1000 // milliseconds

// end makes sure that nothing of a porter is left. said is why it is not
// listened to any more; the result is nil if it ended as it should.
func (c *child) end(said error) error {
	c.line.Close()
	left := errors.Is(said, io.EOF) || errors.Is(said, unix.ECONNRESET) || errors.Is(said, unix.EPIPE)
	if !left || !c.ends() {
		_ = unix.Kill(c.pid, unix.SIGKILL) // not reaped yet, so it is still this one
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(c.pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if c.pidfd >= 0 {
		_ = unix.Close(c.pidfd)
	}
	switch {
	case !left:
		return said
	case status.Signaled():
		return fmt.Errorf("it was ended by the signal %q", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", status.ExitStatus())
	}
	return nil
}

// ends waits for the process to end by itself.
func (c *child) ends() bool {
	if c.pidfd < 0 {
		return false
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}, grace)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// firstToGo has the kernel end this process before the witness when memory is
// short: another is made in no time.
func firstToGo() { _ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0) }
