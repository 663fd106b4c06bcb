package wire

import (
	"bufio"
	"net"
	"sync"

	"vmctl/node/wire/prompt"
)

// Gathering is a connection below TLS, which writes and reads record by record,
// 16 KiB at most: of a long frame it makes few system calls instead of many.
// What is written goes out at once, unless it is between the two ends of a Send.
type Gathering struct {
	net.Conn
	in   *bufio.Reader
	head [recordHeader]byte // of the record being read
	got  int                // bytes of head that were read
	left int                // bytes of its body that were not

	mu   sync.Mutex
	held bool
	out  []byte
}

// gatherSize is how much is written or read at once.
const gatherSize = 64 << 10

// Gather takes over raw.
func Gather(raw net.Conn) *Gathering {
	raw = prompt.New(raw)
	return &Gathering{Conn: raw, in: bufio.NewReaderSize(raw, gatherSize)}
}

// recordHeader is the length of a TLS record's header, whose last two bytes are
// the length of its body.
const recordHeader = 5

// Read ends at the end of a record at the latest. So whatever was read ahead is
// here, and Buffered says so: TLS keeps what it has got beyond a record to itself.
func (g *Gathering) Read(p []byte) (int, error) {
	if g.left > 0 {
		n, err := g.in.Read(p[:min(len(p), g.left)])
		g.left -= n
		return n, err
	}
	n, err := g.in.Read(p[:min(len(p), recordHeader-g.got)])
	g.got += copy(g.head[g.got:], p[:n])
	if g.got == recordHeader {
		g.left, g.got = int(g.head[3])<<8|int(g.head[4]), 0
	}
	return n, err
}

func (g *Gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held {
		return g.Conn.Write(p)
	}
	g.out = append(g.out, p...)
	if len(g.out) >= gatherSize {
		return len(p), g.flush()
	}
	return len(p), nil
}

func (g *Gathering) flush() error {
	_, err := g.Conn.Write(g.out)
	g.out = g.out[:0]
	return err
}

// hold holds writes back until release.
func (g *Gathering) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

func (g *Gathering) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	return g.flush()
}
