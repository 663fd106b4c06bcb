package nbd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// memory is a Device in memory that counts what it is asked for.
type memory struct {
	mu      sync.Mutex
	bytes   []byte
	flushes int
	trims   int
	zeroes  int
	fail    error
	gate    chan struct{} // when set, each write waits for one token
	atGate  int           // writes that came to the gate
	through int           // and left it
	beside  bool          // one came while another stood there
}

func (m *memory) Size() int64 { return int64(len(m.bytes)) }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(p, m.bytes[off:]), m.fail
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.gate != nil {
		m.mu.Lock()
		m.beside = m.beside || m.atGate > m.through
		m.atGate++
		m.mu.Unlock()
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.through++
	return copy(m.bytes[off:], p), m.fail
}

func (m *memory) Discard(off, length int64, zero bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !zero {
		m.trims++
		return m.fail
	}
	m.zeroes++
	clear(m.bytes[off : off+length])
	return m.fail
}

func (m *memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	return m.fail
}

// look runs check while nothing changes.
func (m *memory) look(check func() bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return check()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve serves exports on a socket until the test ends, and returns its path.
func serve(t testing.TB, exports map[string]Export) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(exports, quiet()).Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

// pattern is content that differs everywhere.
func pattern(size int, seed byte) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i)*7 + byte(i>>8)*13 + byte(i>>16) + seed
	}
	return p
}

// session is a raw connection to a server, past the greeting.
func session(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.ReadFull(conn, make([]byte, 18)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte{0, 0, 0, flagFixedNewstyle | flagNoZeroes}); err != nil {
		t.Fatal(err)
	}
	return conn
}
