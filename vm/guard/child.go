package guard

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is QEMU as its parent sees it. It is reaped nowhere but in reap, so its
// pid cannot come to name another process before that. One goroutine uses it.
type child struct {
	pid   int
	pidfd int
	start uint64
	tasks int        // directory /proc/PID/task, kept open
	buf   [4096]byte // entries of it
	tids  [1024]int32
	known int // how many of tids are valid
	info  unix.Siginfo
}

// spawn starts QEMU. The caller must be locked to its thread, and that thread
// must live as long as the process: the death signal is tied to it.
func spawn(l *Launch) (*child, error) {
	program, err := exec.LookPath(l.Argv[0])
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w; install it or name it by its path", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	defer null.Close()
	log, err := os.OpenFile(l.LogPath, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of QEMU: %w", err)
	}
	defer log.Close()
	c := &child{pidfd: -1, tasks: -1}
	c.pid, err = syscall.ForkExec(program, l.Argv, &syscall.ProcAttr{
		Dir:   cmp.Or(l.Dir, "/"),
		Env:   childEnv(l.Env),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &c.pidfd},
	})
	if err != nil {
		return nil, fmt.Errorf("start QEMU %s: %w", program, err)
	}
	if err := c.attach(); err != nil {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(c.pid, nil, 0, nil)
		return nil, fmt.Errorf("watch QEMU (pid %d): %w", c.pid, err)
	}
	return c, nil
}

func (c *child) attach() (err error) {
	if c.pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(c.pid, 0); err != nil {
			return err
		}
	}
	dir := filepath.Join("/proc", strconv.Itoa(c.pid))
	if c.start, err = startTime(c.pid); err != nil {
		return err
	}
	c.tasks, err = unix.Open(dir+"/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

func (c *child) signal(sig unix.Signal) error {
	return unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
}

// freeze sends the stop to the process and then to every thread of it. The first
// alone lets other threads run on until one of them is scheduled to take it, which
// took up to 159 ms on a loaded machine; with the second the first thread that
// runs at all stops the whole process.
//
// The threads known from before come first: a look into /proc may have to wait for
// another process that reads the same directory.
func (c *child) freeze() { c.toAll(unix.SIGSTOP) }

func (c *child) toAll(sig unix.Signal) {
	_ = c.signal(sig)
	for _, tid := range c.tids[:c.known] {
		_ = unix.Tgkill(c.pid, int(tid), sig)
	}
	c.scan()
	for _, tid := range c.tids[:c.known] {
		_ = unix.Tgkill(c.pid, int(tid), sig)
	}
}

// touch writes to all the memory that scan may need, for a QEMU with more threads.
func (c *child) touch() {
	clear(c.buf[:])
	clear(c.tids[:])
}

// scan notes the threads of QEMU. Where there is no room for all, the first stand
// for the others: one thread that takes the stop is enough.
func (c *child) scan() {
	if _, err := unix.Seek(c.tasks, 0, unix.SEEK_SET); err != nil {
		return
	}
	c.known = 0
	for {
		n, err := unix.Getdents(c.tasks, c.buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for b := c.buf[:n]; len(b) > 19; {
			// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name
			size := int(b[16]) | int(b[17])<<8
			if size < 20 || size > len(b) {
				return
			}
			if tid := dirNumber(b[19:size]); tid > 0 && c.known < len(c.tids) {
				c.tids[c.known] = int32(tid)
				c.known++
			}
			b = b[size:]
		}
	}
}

// dirNumber reads a NUL-terminated decimal name; 0 for any other name.
func dirNumber(name []byte) int {
	n := 0
	for _, c := range name {
		if c == 0 {
			return n
		}
		if c < '0' || c > '9' || n > 1<<26 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return 0
}

// stopped says whether the kernel counts the whole process as stopped now. The
// kernel tells a parent so only when the last thread has stopped; WNOWAIT leaves
// the news in place to be asked for again.
func (c *child) stopped() bool {
	const cldStopped = 5
	c.info = unix.Siginfo{}
	err := unix.Waitid(unix.P_PID, c.pid, &c.info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && c.info.Signo == int32(unix.SIGCHLD) && c.info.Code == cldStopped
}

// reap takes the exit status once all threads are gone.
func (c *child) reap() (syscall.WaitStatus, bool) {
	var status syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(c.pid, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		return status, pid == c.pid
	}
}

func (c *child) close() {
	_ = unix.Close(c.pidfd)
	_ = unix.Close(c.tasks)
}

// childEnv is env, or the guard's own less what was meant for the guard alone.
func childEnv(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return withoutServiceEnv(env)
}

// withoutServiceEnv drops what a service manager tells one process: it must not
// be passed on, else the child could speak for its parent.
func withoutServiceEnv(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, e := range env {
		switch key, _, _ := strings.Cut(e, "="); key {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES":
		default:
			kept = append(kept, e)
		}
	}
	return kept
}
