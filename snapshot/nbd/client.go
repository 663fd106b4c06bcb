package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Client reads an export. Its methods may be called from many goroutines.
type Client struct {
	conn       net.Conn
	size       int64
	flags      uint16
	structured bool
	meta       uint32 // context id of base:allocation
	hasMeta    bool

	writing sync.Mutex // held for each request, so that they do not mix

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*call
	err     error
	done    chan struct{}
}

// call is a request that waits for its answer. The receiving goroutine owns
// its buffer until result is delivered.
type call struct {
	off     int64
	buf     []byte
	extents []Extent
	err     error
	result  chan error
}

// Extent is a run of bytes with the same allocation.
type Extent struct {
	Length int64
	Zero   bool // reads as zeroes
}

// Dial connects to an export of a server on a unix socket. ctx bounds the
// handshake only. The server's size of the export is fixed from then on.
func Dial(ctx context.Context, socket, export string) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to nbd export %q: %w", export, err)
	}
	c, err := newClient(ctx, conn, export)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to nbd export %q on %s: %w", export, socket, err)
	}
	return c, nil
}

func newClient(ctx context.Context, conn net.Conn, export string) (*Client, error) {
	deadline := time.Now().Add(negotiationTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &Client{conn: conn, waiting: map[uint64]*call{}, done: make(chan struct{})}
	if err := c.negotiate(export); err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	go c.receive()
	return c, nil
}

// Size is the length of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// Close says goodbye and ends the connection; calls under way fail with
// ErrClosed. It returns when the receiving goroutine has ended.
func (c *Client) Close() error {
	c.writing.Lock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = c.conn.Write(request{kind: cmdDisc}.append(nil))
	c.writing.Unlock()
	err := c.conn.Close()
	<-c.done
	return err
}

// ReadAt fills p from off; holes of the export cost no transfer when the server
// has structured replies. Reads longer than MaxRequest are split.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	read := 0
	for read < len(p) {
		part := p[read:min(len(p), read+MaxRequest)]
		r := request{kind: cmdRead, offset: uint64(off) + uint64(read), length: uint32(len(part))}
		if _, err := c.do(r, &call{off: off + int64(read), buf: part}); err != nil {
			return read, fmt.Errorf("nbd read of %d bytes at %d: %w", len(part), off, err)
		}
		read += len(part)
	}
	return read, nil
}

// Extents says which parts of [off, off+length) read as zeroes. The server may
// describe less than asked, never nothing. ErrNotSupported without
// base:allocation. length is below 4 GiB.
func (c *Client) Extents(off, length int64) ([]Extent, error) {
	if !c.hasMeta {
		return nil, fmt.Errorf("nbd block status: %w", ErrNotSupported)
	}
	r := request{kind: cmdBlockStatus, offset: uint64(off), length: uint32(length)}
	done, err := c.do(r, &call{off: off})
	if err != nil {
		return nil, fmt.Errorf("nbd block status of %d bytes at %d: %w", length, off, err)
	}
	if len(done.extents) == 0 {
		return nil, fmt.Errorf("nbd block status of %d bytes at %d: empty: %w", length, off, ErrProtocol)
	}
	return done.extents, nil
}

func (c *Client) do(r request, waiter *call) (*call, error) {
	waiter.result = make(chan error, 1)
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return nil, err
	}
	c.next++
	r.handle = c.next
	c.waiting[r.handle] = waiter
	c.mu.Unlock()

	c.writing.Lock()
	_, err := c.conn.Write(r.append(make([]byte, 0, requestSize)))
	c.writing.Unlock()
	if err != nil {
		c.conn.Close() // the receiver fails everyone, us included
	}
	return waiter, <-waiter.result
}

// receive delivers answers until the connection ends, then fails what waits.
func (c *Client) receive() {
	defer close(c.done)
	in := bufio.NewReaderSize(c.conn, 64<<10)
	var err error
	for err == nil {
		err = c.receiveOne(in)
	}
	c.conn.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("%w (%w)", ErrClosed, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for handle, waiter := range c.waiting {
		delete(c.waiting, handle)
		waiter.result <- err
	}
}

// find returns the call of a handle, and forgets it with last.
func (c *Client) find(handle uint64, last bool) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiter := c.waiting[handle]
	if waiter == nil {
		return nil, fmt.Errorf("answer to unknown request %d: %w", handle, ErrProtocol)
	}
	if last {
		delete(c.waiting, handle)
	}
	return waiter, nil
}

func (c *Client) receiveOne(in *bufio.Reader) error {
	var head [20]byte
	if _, err := io.ReadFull(in, head[:16]); err != nil {
		return err
	}
	switch binary.BigEndian.Uint32(head[:]) {
	case magicSimple:
		return c.simpleReply(in, binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:]))
	case magicStructured:
		if _, err := io.ReadFull(in, head[16:]); err != nil {
			return err
		}
		return c.structuredReply(in, chunk{
			flags:  binary.BigEndian.Uint16(head[4:]),
			kind:   binary.BigEndian.Uint16(head[6:]),
			handle: binary.BigEndian.Uint64(head[8:]),
			length: binary.BigEndian.Uint32(head[16:]),
		})
	}
	return fmt.Errorf("reply magic %#x: %w", head[:4], ErrProtocol)
}

func (c *Client) simpleReply(in io.Reader, number uint32, handle uint64) error {
	waiter, err := c.find(handle, false)
	if err != nil {
		return err
	}
	if number == 0 {
		if c.structured && waiter.buf != nil {
			return fmt.Errorf("simple reply to a read: %w", ErrProtocol)
		}
		if _, err := io.ReadFull(in, waiter.buf); err != nil {
			return err
		}
	} else {
		waiter.err = syscall.Errno(number)
	}
	if _, err := c.find(handle, true); err != nil {
		return err
	}
	waiter.result <- waiter.err
	return nil
}
