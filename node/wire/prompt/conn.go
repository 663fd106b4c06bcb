package prompt

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// Conn is a connection that is read and written so. Deadlines, Close and
// everything else are those of the connection below.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// New takes over a connection; one that has no descriptor stays as it is.
func New(conn net.Conn) net.Conn {
	below, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := below.SyscallConn()
	if err != nil {
		return conn
	}
	return &Conn{Conn: conn, raw: raw}
}

// most is how many bytes one system call moves: no goroutine can be stopped in it.
const most = 256 << 10

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := call("read", c.raw.Read, syscall.SYS_READ, p[:min(len(p), most)])
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := call("write", c.raw.Write, syscall.SYS_WRITE, p[written:min(len(p), written+most)])
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// call makes a system call with p, which is not empty, when the socket is ready for it.
func call(op string, when func(func(fd uintptr) bool) error, number uintptr, p []byte) (n int, err error) {
	var failed syscall.Errno
	err = when(func(fd uintptr) bool {
		for {
			var r uintptr
			r, _, failed = syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
			if failed != syscall.EINTR {
				n = int(r)
				return failed != syscall.EAGAIN
			}
		}
	})
	var told *net.OpError
	if errors.As(err, &told) { // closed, or a deadline; net calls it a raw one
		told.Op = op
	}
	if err != nil {
		return 0, err
	}
	if failed != 0 {
		return 0, os.NewSyscallError(op, failed)
	}
	return n, nil
}
