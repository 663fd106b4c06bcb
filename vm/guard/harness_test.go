package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the other processes. Every one of them hangs
// on a lifeline, a FIFO this process holds open: should the tests be killed, the
// guards end by themselves, and their QEMUs with them.
func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv("GUARD_TEST_ROLE"); {
	case len(os.Args) == 3 && os.Args[1] == "guard":
		holdOn()
		err = Main(context.Background(), os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil)))
	case role == "qemu":
		err = fakeQEMU()
	case role == "agent":
		holdOn()
		err = fakeAgent()
	case role == "busy":
		holdOn()
		for spins := uint64(0); ; spins++ { // it is to take a whole processor
		}
	case role == "starter":
		err = fakeStarter()
	default:
		os.Exit(runTests(m))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guard")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	hold, err := newLifeline(filepath.Join(dir, "lifeline"))
	if err != nil {
		panic(err)
	}
	defer hold.Close()
	// The race detector delays the end of every process by a second otherwise.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	return m.Run()
}

func newLifeline(path string) (*os.File, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	if err := os.Setenv("GUARD_TEST_LIFELINE", path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func holdOn() {
	f, err := os.OpenFile(os.Getenv("GUARD_TEST_LIFELINE"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		os.Exit(98)
	}
	go func() {
		_, _ = io.Copy(io.Discard, f)
		os.Exit(99)
	}()
}

// bench is one guest with its guard.
type bench struct {
	testing.TB
	exe      string // of guard and agent
	launch   Launch
	board    *board
	client   *Client
	clients  []*Client
	launcher Session
}

func newBench(t testing.TB, env ...string) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "g") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	b := &bench{TB: t, exe: os.Args[0], launch: Launch{
		Guest: Guest{Name: "web", UUID: "8f2e7f70-0000-4000-8000-000000000001"},
		Argv:  []string{os.Args[0]},
		Env: append([]string{
			"GUARD_TEST_ROLE=qemu", "FAKE_GAP_US=400", "FAKE_BOARD=" + path("board"), "FAKE_QMP=" + path("qmp"),
		}, env...),
		ConfigPath: path("guard.json"), LogPath: path("log"), Socket: path("guard.sock"),
		QMPSocket: path("qmp"), ExitPath: path("exit.json"), Epoch: 7, DeadlineNS: Forever,
	}}
	if b.board, err = openBoard(path("board")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range b.clients {
			_ = c.KillNow()
			_ = c.Close()
		}
		b.launcher.Wait()
		if t.Failed() {
			t.Logf("log of the guest:\n%s", tail(b.launch.LogPath, 0))
		}
		_ = os.RemoveAll(dir)
	})
	return b
}

func startBench(t testing.TB, env ...string) *bench {
	t.Helper()
	b := newBench(t, env...)
	b.start()
	return b
}

func (b *bench) start() {
	b.Helper()
	client, err := Start(b.Context(), b.exe, b.launch, &b.launcher)
	if err != nil {
		b.Fatal(err)
	}
	b.client = client
	b.clients = append(b.clients, client)
}

func (b *bench) attach() *Client {
	b.Helper()
	c, err := Attach(b.Context(), b.launch.ConfigPath)
	if err != nil {
		b.Fatal(err)
	}
	b.clients = append(b.clients, c)
	return c
}

func (b *bench) bounded() context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), 15*time.Second)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) status() Status {
	b.Helper()
	s, err := b.client.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (b *bench) renew(deadline int64) {
	b.Helper()
	if err := b.client.Renew(b.Context(), b.launch.Epoch, deadline); err != nil {
		b.Fatal(err)
	}
}

// until waits for a state of another process, which cannot tell by itself.
func (b *bench) until(what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("never happened: %s", what)
		}
	}
}

// lapse gives the guest a lease that ends soon, and returns when. This process may
// stand still until it is too late to ask for that; then it asks anew.
func (b *bench) lapse(within time.Duration) (deadline int64) {
	b.Helper()
	for {
		deadline = soon(within)
		err := b.client.Renew(b.Context(), b.launch.Epoch, deadline)
		if err == nil {
			return deadline
		}
		if !errors.Is(err, ErrPastDeadline) || Now() < deadline {
			b.Fatal(err)
		}
	}
}

func (b *bench) untilStopped() {
	b.Helper()
	b.until("guest confirmed stopped", func() bool { return b.status().Stopped })
}

func (b *bench) untilTicks() {
	b.Helper()
	from := b.board.ticks()
	b.until("guest ticks", func() bool { return b.board.ticks() > from })
}

func (b *bench) untilDone() ExitRecord {
	b.Helper()
	select {
	case <-b.client.Done():
	case <-time.After(15 * time.Second):
		b.Fatal("QEMU does not end")
	}
	r, ok := b.client.Exit()
	if !ok {
		return ExitRecord{PID: -1}
	}
	return r
}

// mustBeStill fails if the guest ticks, or any thread of it is not stopped.
func (b *bench) mustBeStill() {
	b.Helper()
	before := b.board.ticks()
	if running := runningThreads(b.TB, b.client.PID()); len(running) > 0 {
		b.Errorf("threads of a frozen QEMU are not stopped: %v", running)
	}
	time.Sleep(50 * time.Millisecond) // not to synchronise: to give a leak the time to show
	if after := b.board.ticks(); after != before {
		b.Errorf("a frozen guest ticked %d times", after-before)
	}
}

func runningThreads(t testing.TB, pid int) (running []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(rest, "T") {
			running = append(running, string(stat[:min(len(stat), 40)]))
		}
	}
	return running
}

func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func soon(d time.Duration) int64 { return Now() + int64(d) }

const (
	stopSignal = syscall.SIGSTOP
	contSignal = syscall.SIGCONT
)
