package wire

import (
	"bufio"
	"net"
	"sync"
)

// Gathering is a connection below TLS, which writes and reads record by record,
// 16 KiB at most: of a long frame it makes few system calls instead of many.
// What is written goes out at once, unless it is between the two ends of a Send.
type Gathering struct {
	net.Conn
	in *bufio.Reader

	mu   sync.Mutex
	held bool
	out  []byte
}

// gatherSize is how much is written or read at once.
const gatherSize = 64 << 10

// Gather takes over raw.
func Gather(raw net.Conn) *Gathering {
	return &Gathering{Conn: raw, in: bufio.NewReaderSize(raw, gatherSize)}
}

func (g *Gathering) Read(p []byte) (int, error) { return g.in.Read(p) }

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
