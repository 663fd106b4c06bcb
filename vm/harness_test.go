package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// TestMain lets the test binary play the guard of the guests it starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		if err := guard.Main(context.Background(), os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// realPlatform uses the real guard and the real QMP client.
func realPlatform(t *testing.T) Platform {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := testPlatform()
	var session guard.Session
	t.Cleanup(session.Wait)
	p.Launch = func(ctx context.Context, l guard.Launch) (Guard, error) {
		client, err := guard.Start(ctx, exe, l, &session)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { client.Close() })
		return guardClient{client}, nil
	}
	p.Dial = func(ctx context.Context, socket string) (Monitor, error) {
		client, err := qmp.Dial(ctx, socket, p.Log)
		if err != nil {
			return nil, err
		}
		return qmpClient{client}, nil
	}
	return p
}

type guardClient struct{ *guard.Client }

func (c guardClient) Gone() <-chan struct{} { return c.Done() }
func (c guardClient) Record() *guard.ExitRecord {
	if record, ok := c.Exit(); ok {
		return &record
	}
	return nil
}

type qmpClient struct{ *qmp.Client }

func (c qmpClient) Events() (<-chan QEMUEvent, func()) {
	in, cancel := c.Client.Events()
	out := make(chan QEMUEvent, 1000)
	go func() {
		defer close(out)
		for e := range in {
			out <- QEMUEvent{Name: e.Name, Data: e.Data, Time: e.Time}
		}
	}()
	return out, cancel
}

// processGuard stands in for the guard: it is QEMU's parent and nothing more.
type processGuard struct {
	cmd    *exec.Cmd
	log    string
	gone   chan struct{}
	mu     sync.Mutex
	reason guard.Reason
	record *guard.ExitRecord
}

func launchProcess(_ context.Context, l guard.Launch) (Guard, error) {
	log, err := os.OpenFile(l.LogPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g := &processGuard{cmd: exec.Command(l.Argv[0], l.Argv[1:]...), log: l.LogPath, gone: make(chan struct{}), reason: guard.ReasonExited}
	g.cmd.Stderr = log
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = g.cmd.Wait()
		output, _ := os.ReadFile(g.log)
		status := g.cmd.ProcessState.Sys().(syscall.WaitStatus)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.record = &guard.ExitRecord{PID: g.cmd.Process.Pid, Code: g.cmd.ProcessState.ExitCode(), Reason: g.reason, Time: time.Now(), Output: string(output)}
		if status.Signaled() {
			g.record.Signal = int(status.Signal())
		}
		close(g.gone)
	}()
	return g, nil
}

func (g *processGuard) end(signal os.Signal, reason guard.Reason) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason = reason
	if err := g.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (g *processGuard) KillNow() error             { return g.cmd.Process.Kill() }
func (g *processGuard) Kill(context.Context) error { return g.end(os.Kill, guard.ReasonKilled) }
func (g *processGuard) Gone() <-chan struct{}      { return g.gone }
func (g *processGuard) Terminate(context.Context, time.Duration) error {
	return g.end(syscall.SIGTERM, guard.ReasonTerminated)
}

func (g *processGuard) Record() *guard.ExitRecord {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.record
}

// plainMonitor is a Monitor over plain QMP text.
type plainMonitor struct {
	conn    net.Conn
	mu      sync.Mutex // one command at a time
	replies chan map[string]json.RawMessage
	events  chan QEMUEvent
}

func dialPlain(ctx context.Context, socket string) (Monitor, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	m := &plainMonitor{conn: conn, replies: make(chan map[string]json.RawMessage, 1), events: make(chan QEMUEvent, 1000)}
	go m.read()
	if err := m.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *plainMonitor) read() {
	defer close(m.events)
	defer close(m.replies)
	for lines := bufio.NewScanner(m.conn); lines.Scan(); {
		var message map[string]json.RawMessage
		if json.Unmarshal(lines.Bytes(), &message) != nil || message["QMP"] != nil {
			continue
		}
		if name := message["event"]; name != nil {
			m.events <- QEMUEvent{Name: strings.Trim(string(name), `"`), Data: message["data"], Time: time.Now()}
			continue
		}
		m.replies <- message
	}
}

func (m *plainMonitor) Execute(ctx context.Context, command string, args, reply any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return err
	}
	select {
	case message, ok := <-m.replies:
		if !ok {
			return net.ErrClosed
		}
		if text := message["error"]; text != nil {
			return errors.New(string(text))
		}
		if reply == nil {
			return nil
		}
		return json.Unmarshal(message["return"], reply)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *plainMonitor) Events() (<-chan QEMUEvent, func()) { return m.events, func() {} }
func (m *plainMonitor) Close() error                       { return m.conn.Close() }

// fakeNetwork remembers which taps there are.
type fakeNetwork struct {
	mu   sync.Mutex
	taps map[string]string
	down map[string]bool // taps whose link is down
	fail string          // the tap that cannot be attached
}

func (n *fakeNetwork) Attach(tap, bridge, _ string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if tap == n.fail {
		return errors.New("no such bridge " + bridge)
	}
	n.taps[tap] = bridge
	return nil
}

func (n *fakeNetwork) Remove(tap string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taps, tap)
	return nil
}

func (n *fakeNetwork) CheckTap(string) error { return nil }

func (n *fakeNetwork) SetLink(tap string, up bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taps[tap] == "" {
		return errors.New("no such tap " + tap)
	}
	if n.down == nil {
		n.down = map[string]bool{}
	}
	n.down[tap] = !up
	return nil
}

func (n *fakeNetwork) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.taps)
}

func testPlatform() (Platform, *fakeNetwork) {
	n := &fakeNetwork{taps: map[string]string{}}
	return Platform{Launch: launchProcess, Dial: dialPlain, Network: n, Log: slog.New(slog.DiscardHandler)}, n
}
