package guard

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxPeers  = 32
	lockBound = time.Second
)

// peer is one connection. A free slot has fd -1.
type peer struct {
	fd     int
	serial uint64 // never used twice, as descriptors are
}

// peers is the server side of the socket: plain descriptors for the loop's epoll.
type peers struct {
	path   string
	lock   *os.File // held for life: one guard per socket path
	listen int
	serial uint64
	slots  [maxPeers]peer
}

// openPeers takes the lock of the socket and listens. ErrRunning: another guard
// has it.
func openPeers(path string) (*peers, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock guard socket: %w", err)
	}
	if err := takeLock(int(lock.Fd())); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is in use", ErrRunning, path)
		}
		return nil, fmt.Errorf("lock guard socket %s: %w", path, err)
	}
	p := &peers{path: path, lock: lock, listen: -1}
	for i := range p.slots {
		p.slots[i].fd = -1
	}
	if err := p.bind(); err != nil {
		p.close()
		return nil, fmt.Errorf("listen on guard socket %s: %w", path, err)
	}
	return p, nil
}

// takeLock tries for a moment: a guard that was killed gives its lock up a little
// later than its QEMU is seen to be gone.
func takeLock(fd int) error {
	for end := time.Now().Add(lockBound); ; time.Sleep(lockBound / 100) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

func (p *peers) bind() (err error) {
	// Under the lock an existing socket can only be one left over.
	if err := os.Remove(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	flags := unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if p.listen, err = unix.Socket(unix.AF_UNIX, flags, 0); err != nil {
		return err
	}
	if err := unix.Bind(p.listen, &unix.SockaddrUnix{Name: p.path}); err != nil {
		return err
	}
	if err := os.Chmod(p.path, 0o600); err != nil {
		return err
	}
	return unix.Listen(p.listen, maxPeers)
}

// accept takes one waiting connection. ok is false when none waits; p is nil for
// one that was turned away: a stranger, or one too many.
func (p *peers) accept() (_ *peer, ok bool) {
	flags := uintptr(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	// The address is of no interest, and unix.Accept4 would allocate one.
	r, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(p.listen), 0, 0, flags, 0, 0)
	if errno == unix.EINTR || errno == unix.ECONNABORTED {
		return nil, true
	}
	if errno != 0 {
		return nil, false
	}
	fd := int(r)
	for i := range p.slots {
		if p.slots[i].fd < 0 && trusted(fd) {
			p.serial++
			p.slots[i] = peer{fd: fd, serial: p.serial}
			return &p.slots[i], true
		}
	}
	_ = unix.Close(fd)
	return nil, true
}

// trusted accepts root and the guard's own user.
func trusted(fd int) bool {
	var cred unix.Ucred
	size := uint32(unsafe.Sizeof(cred))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERCRED,
		uintptr(unsafe.Pointer(&cred)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

func (p *peers) find(fd int) *peer {
	for i := range p.slots {
		if p.slots[i].fd == fd {
			return &p.slots[i]
		}
	}
	return nil
}

// send never waits: a client that does not read its answers is no reason to be late.
func (p *peer) send(packet []byte) bool {
	return unix.Send(p.fd, packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil
}

func (p *peer) close() {
	_ = unix.Close(p.fd)
	p.fd = -1
}

func (p *peers) broadcast(packet []byte) {
	for i := range p.slots {
		if p.slots[i].fd >= 0 {
			p.slots[i].send(packet)
		}
	}
}

// retire makes room for the next guard of this guest: whoever is told by the last
// broadcast may start one at once.
func (p *peers) retire() {
	if p.listen >= 0 {
		_ = os.Remove(p.path)
		_ = unix.Close(p.listen)
		p.listen = -1
	}
	_ = p.lock.Close()
}

func (p *peers) close() {
	p.retire()
	for i := range p.slots {
		if p.slots[i].fd >= 0 {
			p.slots[i].close()
		}
	}
}
