package guard

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a pidfd of a process that need not be a child of this one. It names
// one process for good, whatever happens to the pid.
type process struct {
	file *os.File
	raw  syscall.RawConn
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{file, raw}, nil
}

// wait returns nil when the process has ended, all its threads included, and an
// error when close was called. It holds no thread while it waits.
func (p *process) wait() error {
	return p.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
}

// kill sends SIGKILL. A process that has ended already is no error.
func (p *process) kill() error {
	var sent error
	err := p.raw.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	})
	if errors.Is(sent, unix.ESRCH) {
		sent = nil
	}
	return errors.Join(err, sent)
}

func (p *process) close() { _ = p.file.Close() }
