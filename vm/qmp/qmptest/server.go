package qmptest

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Greeting72 is what Debian's QEMU 7.2 says first.
const Greeting72 = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, ` +
	`"package": "Debian 1:7.2+dfsg-7+deb12u18"}, "capabilities": ["oob"]}}`

// ErrNoReply, returned by a Handler, leaves the command without an answer.
var ErrNoReply = errors.New("no reply")

// Handler answers a command: a value to return, or an error. A *qmp.Error keeps
// its class; any other becomes a GenericError. While an in-band handler runs, other
// in-band commands wait, as in QEMU. It should end when call.Done() is closed.
type Handler func(call *Call) (any, error)

// Server is the monitor. Its methods may be called from any goroutine.
type Server struct {
	// Greeting is sent first to each client; "" sends none. Set it before Listen.
	Greeting string

	path     string
	dir      string
	listener *net.UnixListener
	gate     sync.RWMutex // held for writing while frozen
	frozen   bool         // the control's, under mu
	done     chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex
	handlers map[string]Handler
	calls    []*Call
	client   *client
	dead     bool
}

// Start returns a listening server without handlers that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := New(t)
	s.Listen(t)
	return s
}

// New returns a server that does not listen yet, to be prepared first.
func New(t testing.TB) *Server {
	t.Helper()
	// Not t.TempDir: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatalf("qmptest: %v", err)
	}
	s := &Server{
		Greeting: Greeting72,
		dir:      dir,
		path:     filepath.Join(dir, "qmp.sock"),
		done:     make(chan struct{}),
		handlers: make(map[string]Handler),
	}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	return s
}

// Listen opens the socket.
func (s *Server) Listen(t testing.TB) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatalf("qmptest: %v", err)
	}
	s.listener = listener
	s.running.Go(s.accept)
}

// Path is that of the socket.
func (s *Server) Path() string { return s.path }

// Handle sets the handler of a command; nil makes the command unknown.
func (s *Server) Handle(command string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[command] = h
}

// Return lets a command return value.
func (s *Server) Return(command string, value any) {
	s.Handle(command, func(*Call) (any, error) { return value, nil })
}

// Emit sends an event to the client, if there is one. data may be nil.
func (s *Server) Emit(event string, data any) {
	now := time.Now()
	message := map[string]any{
		"event":     event,
		"timestamp": map[string]int64{"seconds": now.Unix(), "microseconds": int64(now.Nanosecond() / 1000)},
	}
	if data != nil {
		message["data"] = data
	}
	s.Send(mustEncode(message))
}

// Send sends any bytes to the client, if there is one.
func (s *Server) Send(raw []byte) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil {
		s.gate.RLock()
		defer s.gate.RUnlock()
		client.write(raw)
	}
}

// Calls are the commands of that name so far; "" is every command. Those of a
// frozen server and qmp_capabilities are not among them.
func (s *Server) Calls(command string) []*Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []*Call
	for _, call := range s.calls {
		if command == "" || call.Command == command {
			calls = append(calls, call)
		}
	}
	return calls
}

// Freeze makes the server do nothing, with its socket open, as a QEMU that got
// SIGSTOP. A handler that is running runs on, but its answer waits.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen && !s.dead {
		s.mu.Unlock()
		s.gate.Lock()
		s.mu.Lock()
		s.frozen = true
	}
}

// Thaw ends Freeze.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		s.frozen = false
		s.gate.Unlock()
	}
}

// thawed waits while the server is frozen.
func (s *Server) thawed() {
	s.gate.RLock()
	defer s.gate.RUnlock()
}

// Hangup closes the connection of the client and goes on with the next.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		_ = s.client.conn.Close()
	}
}

// Kill ends the server as SIGKILL ends QEMU: the socket's file stays. It waits
// for handlers, so it must not be called by one: use call.Kill there.
func (s *Server) Kill() {
	s.kill()
	s.running.Wait()
}

func (s *Server) kill() {
	s.Thaw()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	s.dead = true
	close(s.done)
	if s.listener != nil {
		s.listener.SetUnlinkOnClose(false)
		_ = s.listener.Close()
	}
	if s.client != nil {
		_ = s.client.conn.Close()
	}
}

// accept serves one client after the other.
func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		c := newClient(s, conn)
		s.mu.Lock()
		dead := s.dead
		s.client = c
		s.mu.Unlock()
		if !dead {
			c.serve()
		}
		_ = conn.Close()
		s.mu.Lock()
		s.client = nil
		s.mu.Unlock()
	}
}

func mustEncode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("qmptest: a scripted value has no JSON: " + err.Error())
	}
	return append(data, '\r', '\n')
}
