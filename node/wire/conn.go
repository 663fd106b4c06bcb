package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Kind says what the body of a frame is. Kinds 0 to 15 belong to this package;
// each protocol numbers its own from 16 on, for connections of one purpose.
type Kind uint8

// DefaultMaxFrame is the largest frame, in bytes, that a connection accepts
// unless told otherwise: a one-MiB disk write or page chunk and its header.
const DefaultMaxFrame = 4 << 20

const headerSize = 4

// Errors of the framing. They end the connection.
var (
	ErrFrameTooLarge = errors.New("frame is larger than the limit")
	ErrMalformed     = errors.New("malformed frame")
)

// Options bound a connection. The zero value has the default frame size and
// no timeouts.
type Options struct {
	MaxFrame     int           // bytes; 0 means DefaultMaxFrame
	Buffer       int           // bytes read ahead; 0 means 64 KiB, which suits bulk data
	WriteTimeout time.Duration // a Send that takes longer fails; 0 means none
	ReadTimeout  time.Duration // a Receive that waits longer fails; 0 means none
}

// Conn carries frames over a byte stream. Send may be called from many
// goroutines, Receive from one. After an error the connection is of no more use
// and should be closed.
type Conn struct {
	raw     net.Conn
	opts    Options
	version int // what the handshake agreed on; 0 before it

	gather *Gathering // below TLS; nil: none

	writing sync.Mutex
	out     bytes.Buffer
	encoder *msgpack.Encoder

	in  *bufio.Reader
	buf []byte
}

// NewConn takes over raw and frames it.
func NewConn(raw net.Conn, opts Options) *Conn {
	if opts.MaxFrame <= 0 {
		opts.MaxFrame = DefaultMaxFrame
	}
	if opts.Buffer <= 0 {
		opts.Buffer = 64 << 10
	}
	c := &Conn{raw: raw, opts: opts, in: bufio.NewReaderSize(raw, opts.Buffer)}
	// Not before the handshake: its own messages must not be held back.
	if secure, ok := raw.(*tls.Conn); ok && secure.ConnectionState().HandshakeComplete {
		c.gather, _ = secure.NetConn().(*Gathering)
	}
	c.encoder = msgpack.NewEncoder(&c.out)
	c.encoder.UseCompactInts(true)
	return c
}

// Version is the wire version that the handshake agreed on, 0 before it.
func (c *Conn) Version() int { return c.version }

// Send writes one frame and returns when the operating system has it. A frame
// over the limit is refused and the connection stays good.
func (c *Conn) Send(kind Kind, body any) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out.Reset()
	c.out.Write(make([]byte, headerSize))
	if err := c.encoder.EncodeUint(uint64(kind)); err != nil {
		return fmt.Errorf("encode frame kind %d: %w", kind, err)
	}
	if err := c.encoder.Encode(body); err != nil {
		return fmt.Errorf("encode frame of kind %d: %w", kind, err)
	}
	size := c.out.Len() - headerSize
	if size > c.opts.MaxFrame {
		return fmt.Errorf("send frame of kind %d, %d bytes (limit %d): %w", kind, size, c.opts.MaxFrame, ErrFrameTooLarge)
	}
	binary.BigEndian.PutUint32(c.out.Bytes(), uint32(size))
	if c.opts.WriteTimeout > 0 {
		if err := c.raw.SetWriteDeadline(time.Now().Add(c.opts.WriteTimeout)); err != nil {
			return fmt.Errorf("send frame of kind %d: %w", kind, err)
		}
	}
	if c.gather != nil {
		c.gather.hold()
	}
	_, err := c.raw.Write(c.out.Bytes())
	if c.gather != nil {
		err = errors.Join(err, c.gather.release())
	}
	if err != nil {
		return fmt.Errorf("send frame of kind %d: %w", kind, err)
	}
	return nil
}

// Receive waits for one frame. The body is the raw msgpack value, valid until
// the next Receive; use Decode on it. io.EOF means the other end closed between
// two frames.
func (c *Conn) Receive() (Kind, []byte, error) {
	if c.opts.ReadTimeout > 0 {
		if err := c.raw.SetReadDeadline(time.Now().Add(c.opts.ReadTimeout)); err != nil {
			return 0, nil, fmt.Errorf("receive frame: %w", err)
		}
	}
	payload, err := readFrame(c.in, c.opts.MaxFrame, &c.buf)
	if err != nil {
		return 0, nil, err
	}
	return splitFrame(payload)
}

// Buffered is how many bytes have been read ahead; 0: the next Receive has to wait
// for the network. It is for the goroutine that receives.
func (c *Conn) Buffered() int {
	n := c.in.Buffered()
	if c.gather != nil {
		n += c.gather.in.Buffered()
	}
	return n
}

// readFrame reads one length-prefixed payload into *buf, which it grows as
// bytes arrive: a length alone never makes it allocate.
func readFrame(in io.Reader, limit int, buf *[]byte) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("receive frame: cut off in the header: %w", ErrMalformed)
		}
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(header[:]))
	if size > limit {
		return nil, fmt.Errorf("receive frame of %d bytes (limit %d): %w", size, limit, ErrFrameTooLarge)
	}
	const step = 256 << 10
	got := 0
	for got < size {
		want := min(size, got+step)
		if cap(*buf) < want {
			grown := make([]byte, max(want, min(size, 2*cap(*buf))))
			copy(grown, (*buf)[:got])
			*buf = grown
		}
		*buf = (*buf)[:cap(*buf)]
		n, err := io.ReadFull(in, (*buf)[got:want])
		got += n
		if err != nil {
			return nil, fmt.Errorf("receive frame: %d of %d bytes: %w (%w)", got, size, ErrMalformed, err)
		}
	}
	return (*buf)[:size], nil
}

// splitFrame takes the kind off a payload and checks that a body follows.
func splitFrame(payload []byte) (Kind, []byte, error) {
	if len(payload) > 1 && payload[0] < 0x80 { // a small number is its own encoding
		return Kind(payload[0]), payload[1:], nil
	}
	reader := bytes.NewReader(payload)
	decoder := msgpack.NewDecoder(reader)
	kind, err := decoder.DecodeUint8()
	if err != nil {
		return 0, nil, fmt.Errorf("read frame kind: %w (%w)", ErrMalformed, err)
	}
	body := payload[len(payload)-reader.Len():]
	if len(body) == 0 {
		return 0, nil, fmt.Errorf("frame of kind %d has no body: %w", kind, ErrMalformed)
	}
	return Kind(kind), body, nil
}

// Decode reads a frame's body into v. Fields that v does not know are passed
// over, so that a newer node may add some; bytes after the value are an error.
func Decode(body []byte, v any) (err error) {
	// The msgpack decoder panics on some input (nil for a time, for one), and
	// the bytes are another host's.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode %T: %w (%v)", v, ErrMalformed, p)
		}
	}()
	if err := checkShape(body); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	reader := bytes.NewReader(body)
	decoder := msgpack.GetDecoder()
	decoder.Reset(reader)
	err = decoder.Decode(v)
	msgpack.PutDecoder(decoder) // not one that panicked
	if err != nil {
		return fmt.Errorf("decode %T: %w (%w)", v, ErrMalformed, err)
	}
	if reader.Len() != 0 {
		return fmt.Errorf("decode %T: %d bytes too many: %w", v, reader.Len(), ErrMalformed)
	}
	return nil
}

// Encode gives v the form that a frame's body has.
func Encode(v any) ([]byte, error) { return appendValue(nil, v) }

func appendValue(dst []byte, v any) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	encoder := msgpack.GetEncoder()
	defer msgpack.PutEncoder(encoder)
	encoder.Reset(out)
	encoder.UseCompactInts(true)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return out.Bytes(), nil
}

// Close ends the connection and unblocks Send and Receive at once. TLS's own
// farewell is left out: it would wait for a peer that does not read, and every
// protocol here knows from its frames whether it was complete.
func (c *Conn) Close() error {
	if secure, ok := c.raw.(*tls.Conn); ok {
		return secure.NetConn().Close()
	}
	return c.raw.Close()
}

// Remote is the other end's address.
func (c *Conn) Remote() net.Addr { return c.raw.RemoteAddr() }

// Raw gives the byte stream back, with what has been read ahead, for a purpose
// that goes on without frames (HTTP between agents). Conn must not be used
// afterwards.
func (c *Conn) Raw() net.Conn {
	_ = c.raw.SetDeadline(time.Time{})
	return &unframed{Conn: c.raw, in: c.in}
}

// Release gives the byte stream up to whoever reads and writes its frames from
// now on. It fails when bytes have been read ahead.
func (c *Conn) Release() (net.Conn, error) {
	if n := c.in.Buffered(); n > 0 {
		return nil, fmt.Errorf("%d bytes came before they were asked for: %w", n, ErrMalformed)
	}
	return c.raw, nil
}

type unframed struct {
	net.Conn
	in *bufio.Reader
}

func (u *unframed) Read(p []byte) (int, error) { return u.in.Read(p) }

// SetTimeouts changes the bounds. It must not be called while a Send or
// Receive is under way.
func (c *Conn) SetTimeouts(read, write time.Duration) {
	c.opts.ReadTimeout, c.opts.WriteTimeout = read, write
	_ = c.raw.SetDeadline(time.Time{})
}
