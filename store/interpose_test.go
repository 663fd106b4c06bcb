package store

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call that changes a file, caught before the kernel does it.
type call struct {
	nr     int
	data   []byte // of a write
	offset int64  // of a write; the size for ftruncate
}

func (c call) sync() bool { return c.nr == unix.SYS_FDATASYNC || c.nr == unix.SYS_FSYNC }

var caught = []uint32{unix.SYS_PWRITE64, unix.SYS_FDATASYNC, unix.SYS_FSYNC, unix.SYS_FTRUNCATE}

// interpose runs fn on a thread of its own and asks decide about each of its
// calls in order, before it happens. A nonzero error is returned to the caller
// instead of doing the call. The kernel's seccomp notification does the
// catching, so what is seen is what bbolt really asks of the system. (A signal
// of the Go scheduler does not interrupt a call once it was asked about.)
func interpose(t *testing.T, decide func(call) syscall.Errno, fn func()) {
	t.Helper()
	listener := make(chan int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread, and its filter, end with fn
		fd, err := installFilter()
		if err != nil {
			t.Errorf("seccomp: %v", err)
			close(listener)
			return
		}
		listener <- fd
		fn()
	}()
	fd, ok := <-listener
	if !ok {
		t.FailNow()
	}
	var served sync.WaitGroup
	served.Go(func() { serve(t, fd, done, decide) })
	<-done
	served.Wait()
	_ = unix.Close(fd)
}

func installFilter() (int, error) {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for i, nr := range caught {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(caught) - i)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

func serve(t *testing.T, fd int, done <-chan struct{}, decide func(call) syscall.Errno) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 5); err != nil && err != unix.EINTR {
			t.Errorf("poll: %v", err)
			return
		}
		if p[0].Revents&unix.POLLIN == 0 {
			select {
			case <-done:
				return
			default:
				continue
			}
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the caller was interrupted and asks again
		}
		r := response{id: n.id}
		if errno := decide(readCall(t, n)); errno != 0 {
			r.err = -int32(errno)
		} else {
			r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))); errno != 0 {
			t.Errorf("call %d answered too late: %v", n.nr, errno)
		}
	}
}

func readCall(t *testing.T, n notification) call {
	c := call{nr: int(n.nr)}
	switch n.nr {
	case unix.SYS_FTRUNCATE:
		c.offset = int64(n.args[1])
	case unix.SYS_PWRITE64:
		c.data, c.offset = make([]byte, n.args[2]), int64(n.args[3])
		local := []unix.Iovec{{Base: &c.data[0]}}
		local[0].SetLen(len(c.data))
		remote := []unix.RemoteIovec{{Base: uintptr(n.args[1]), Len: len(c.data)}}
		if got, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0); err != nil || got != len(c.data) {
			t.Errorf("read the data of a write: %d, %v", got, err)
		}
	}
	return c
}
