package qmp

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime is how long the reader may still take in what QEMU sent before it
// stopped listening to us (the reply to "quit", say).
const drainTime = time.Second

// packet is a command's bytes, and the file that goes with them. The writer
// closes the file.
type packet struct {
	body []byte
	file *os.File
}

// write is the goroutine that owns the sending side. Callers only hand over:
// half a command cannot be taken back when a context ends.
func (c *Client) write() {
	for {
		select {
		case p := <-c.out:
			if err := c.send(p); err != nil {
				c.log.Debug("sending to QEMU failed", "error", err)
				_ = c.conn.SetReadDeadline(time.Now().Add(drainTime))
				return
			}
		case <-c.done:
			return
		}
	}
}

func (c *Client) send(p packet) error {
	body := p.body
	if p.file != nil {
		defer p.file.Close()
		// The file travels with the first bytes, so QEMU has it before it has
		// the whole command.
		n, _, err := c.conn.WriteMsgUnix(body, unix.UnixRights(int(p.file.Fd())), nil)
		if err != nil {
			return err
		}
		body = body[n:]
	}
	if len(body) == 0 {
		return nil
	}
	_, err := c.conn.Write(body)
	return err
}

// duplicate returns a handle of our own on f, whose flags it leaves alone
// (File.Fd would make the caller's file blocking).
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("file to pass: %w", err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, fmt.Errorf("file to pass: %w", err)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("file to pass: %w", dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
