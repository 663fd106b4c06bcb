package porter

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/node/peer"
	"vmctl/node/wire"
)

// What the two processes say to each other, one packet each.
const (
	kindSetup     byte = iota + 1 // to the porter, first: whom it speaks for
	kindAnswer                    // to the porter
	kindAlive                     // from the porter, every beat
	kindAuthority                 // from the porter: which certificate does a cluster have?
	kindEnrol                     // from the porter: take a cluster in
	kindLink                      // from the porter, with a socket: a node is at the door
)

const (
	maxPacket = 24 << 10 // bytes; an enrolment is up to 16 KiB
	beat      = time.Second
	// quiet is how many beats in a row may be missing before a process counts as hung,
	// and how many seconds one waits for the other to take a packet.
	quiet = 10
)

// ErrNonsense says that a packet is none that the other end could mean.
var ErrNonsense = errors.New("not a packet of the witness's protocol with its porter")

type setup struct {
	Name string `msgpack:"name"`
	Cert []byte `msgpack:"cert"`
	Key  []byte `msgpack:"key"`
}

type authority struct {
	ID      uint64 `msgpack:"id"`
	Cluster string `msgpack:"cluster"`
}

type enrolment struct {
	ID      uint64            `msgpack:"id"`
	Request peer.EnrolRequest `msgpack:"request"`
}

// answer is to an authority or an enrolment. A text is a refusal.
type answer struct {
	ID   uint64 `msgpack:"id"`
	Data []byte `msgpack:"data"`
	Code string `msgpack:"code"`
	Text string `msgpack:"text"`
}

type link struct {
	Cluster string `msgpack:"cluster"`
	Node    string `msgpack:"node"`
	Version int    `msgpack:"version"`
	In      []byte `msgpack:"in"`
	Out     []byte `msgpack:"out"`
}

// line carries packets between the two processes. Any goroutine may send, one
// receives.
type line struct{ *net.UnixConn }

// newLine takes a descriptor over.
func newLine(fd int) (*line, error) {
	file := os.NewFile(uintptr(fd), "porter")
	if file == nil {
		return nil, fmt.Errorf("descriptor %d is none", fd)
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	packets, ok := conn.(*net.UnixConn)
	if !ok || packets.LocalAddr().Network() != "unixpacket" {
		conn.Close()
		return nil, fmt.Errorf("a %T: %w", conn, ErrNonsense)
	}
	return &line{packets}, nil
}

// send says something, and hands copies of descriptors over with it.
func (l *line) send(kind byte, v any, fds ...int) error {
	packet := []byte{kind}
	if v != nil {
		body, err := wire.Encode(v)
		if err != nil {
			return err
		}
		packet = append(packet, body...)
	}
	if len(packet) > maxPacket {
		return fmt.Errorf("a packet of %d bytes (limit %d): %w", len(packet), maxPacket, ErrNonsense)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := l.SetWriteDeadline(time.Now().Add(quiet * beat)); err != nil {
		return err
	}
	_, _, err := l.WriteMsgUnix(packet, rights, nil)
	return err
}

// packet is what one receive took. The descriptors are the receiver's.
type packet struct {
	kind byte
	body []byte
	fds  []int
}

// receive waits for a packet, in buf.
func (l *line) receive(buf []byte) (p packet, err error) {
	var rights [64]byte
	n, got, flags, _, err := l.ReadMsgUnix(buf, rights[:])
	if err != nil {
		return p, err
	}
	if p.fds, err = descriptors(rights[:got]); err != nil {
		return p, err
	}
	if n == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		p.close()
		return packet{}, fmt.Errorf("%d bytes, cut or empty: %w", n, ErrNonsense)
	}
	p.kind, p.body = buf[0], buf[1:n]
	return p, nil
}

func descriptors(rights []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNonsense, err)
	}
	for i := range messages {
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNonsense, err)
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

// close lets go of what came with a packet.
func (p *packet) close() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
	p.fds = nil
}
