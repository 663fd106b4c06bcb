package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	writeBound = 5 * time.Second // a guard that does not read its socket at all
	newsBound  = 7 * time.Second // from QEMU's end to the guard's word about it
)

// Client is the agent's end of a guard. Its methods may be called concurrently.
// It also holds QEMU's pidfd, so that KillNow needs no guard.
type Client struct {
	launch  Launch
	conn    *net.UnixConn
	process *process
	pid     int
	workers sync.WaitGroup
	closing chan struct{}
	once    sync.Once

	write sync.Mutex // one packet at a time

	mu      sync.Mutex
	seq     uint64
	pending map[uint64]chan reply
	broken  error // set once, when the connection is over
	record  *ExitRecord

	hangup chan struct{} // the connection is over
	dead   chan struct{} // QEMU is gone
	done   chan struct{} // QEMU is gone, and the guard has said how or does not answer
}

// dial connects and makes sure that the other end is a guard of this user or root.
func dial(ctx context.Context, l Launch) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", l.Socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the guard of %s: %w", l.Guest.Name, err)
	}
	c := &Client{
		launch: l, conn: conn.(*net.UnixConn), pending: map[uint64]chan reply{},
		closing: make(chan struct{}), hangup: make(chan struct{}), dead: make(chan struct{}), done: make(chan struct{}),
	}
	c.workers.Go(c.read)
	return c, nil
}

// identify asks the guard who it is, and takes hold of QEMU.
func (c *Client) identify(ctx context.Context) (Status, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return s, err
	}
	cred, err := peerCred(c.conn)
	if err != nil {
		return s, err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() || int(cred.Pid) != s.GuardPID {
		return s, fmt.Errorf("socket %s belongs to process %d of user %d, not to a guard: remove it by hand", c.launch.Socket, cred.Pid, cred.Uid)
	}
	if s.UUID != c.launch.Guest.UUID {
		return s, fmt.Errorf("socket %s belongs to the guard of guest %s, not of %s", c.launch.Socket, s.UUID, c.launch.Guest.UUID)
	}
	if c.process, err = openProcess(s.PID); err != nil {
		return s, &GoneError{Detail: err.Error()}
	}
	// After the pidfd is open: if the process at this pid is the one the guard
	// means, the pidfd is of that one.
	start, err := startTime(s.PID)
	if err != nil || start != s.StartTime {
		return s, &GoneError{Detail: fmt.Sprintf("process %d is not the QEMU of this guard (started at tick %d, not %d)", s.PID, start, s.StartTime)}
	}
	c.pid = s.PID
	c.workers.Go(c.follow)
	return s, nil
}

func peerCred(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("identify guard: %w", err)
	}
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("identify guard: %w", err)
	}
	return cred, nil
}

// read hands every packet to whom it concerns, until the connection is over.
func (c *Client) read() {
	defer close(c.hangup)
	var buf [maxMessage + 1]byte
	for {
		n, err := c.conn.Read(buf[:])
		var r reply
		if err == nil {
			r, err = decodeReply(buf[:n])
		}
		if err != nil {
			c.fail(fmt.Errorf("%w: %w", ErrDetached, err))
			return
		}
		if r.tag == 0 {
			if record, err := decodeExit(r.words); err == nil {
				c.ended(record)
			}
			continue // an event of a later version
		}
		c.mu.Lock()
		ch := c.pending[r.tag]
		delete(c.pending, r.tag)
		c.mu.Unlock()
		if ch != nil {
			ch <- r // has room for one
		}
	}
}

func (c *Client) fail(err error) {
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
	for tag, ch := range c.pending {
		delete(c.pending, tag)
		close(ch)
	}
}

// ended takes the guard's word, completed by what only the record file holds.
func (c *Client) ended(r ExitRecord) {
	if full, err := ReadExitRecord(c.launch.ExitPath); err == nil && full.PID == r.PID {
		r = full
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = &r
}

// follow waits for the end of QEMU, then for the guard's word about it.
func (c *Client) follow() {
	if c.process.wait() != nil {
		return // Close
	}
	close(c.dead)
	select {
	case <-c.hangup:
	case <-c.closing:
		return
	case <-time.After(newsBound):
	}
	if r, err := ReadExitRecord(c.launch.ExitPath); err == nil && r.PID == c.pid {
		c.ended(r)
	}
	close(c.done)
}

// Done is closed when QEMU is gone, every thread of it. It is never closed after
// Close.
func (c *Client) Done() <-chan struct{} { return c.done }

// Dead is closed as soon as QEMU is gone, every thread of it; Done waits for the
// guard's word about it.
func (c *Client) Dead() <-chan struct{} { return c.dead }

// Exit returns how QEMU ended. false: it has not, or its guard was killed with it.
func (c *Client) Exit() (ExitRecord, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record == nil {
		return ExitRecord{}, false
	}
	return *c.record, true
}

// PID is that of QEMU.
func (c *Client) PID() int { return c.pid }

// Launch is what the guard was started with.
func (c *Client) Launch() Launch { return c.launch }

// KillNow sends SIGKILL to QEMU itself, without the guard, for a guard that does
// not answer. Wait for Done: a process in an uninterruptible wait is not gone yet.
func (c *Client) KillNow() error {
	if err := c.process.kill(); err != nil {
		return fmt.Errorf("kill QEMU (pid %d): %w", c.pid, err)
	}
	return nil
}

// Close detaches: guard and guest run on. A pause that was begun here is ended
// by the guard. It may be called more than once, and always returns nil.
func (c *Client) Close() error {
	c.once.Do(func() {
		close(c.closing)
		_ = c.conn.Close()
		if c.process != nil {
			c.process.close()
		}
	})
	c.workers.Wait()
	return nil
}
