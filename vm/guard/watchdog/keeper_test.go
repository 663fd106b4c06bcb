package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/guard"
)

// TestMain lets the test binary be the guards; they hang on a FIFO that this process
// holds open, so that none outlives a killed test.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		f, err := os.OpenFile(os.Getenv("WATCHDOG_TEST_LIFELINE"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			os.Exit(98)
		}
		go func() { _, _ = io.Copy(io.Discard, f); os.Exit(99) }()
		if guard.Main(context.Background(), os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil))) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "lifeline")
	if err := errors.Join(syscall.Mkfifo(path, 0o600), os.Setenv("WATCHDOG_TEST_LIFELINE", path), os.Setenv("GORACE", "atexit_sleep_ms=0")); err != nil {
		panic(err)
	}
	hold, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer hold.Close()
	return m.Run()
}

// fakeDevice notes when it was fed, and would have fired.
type fakeDevice struct {
	mu       sync.Mutex
	timeout  time.Duration
	noWayOut bool
	opens    int
	open     bool
	fed      int64   // when; at first when it was opened
	fired    []int64 // each time that it was left without food for too long
	broken   error
}

func (d *fakeDevice) Timeout() time.Duration { return d.timeout }

func (d *fakeDevice) CanDisarm() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.noWayOut
}

// be changes what it does.
func (d *fakeDevice) be(noWayOut bool, broken error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noWayOut, d.broken = noWayOut, broken
}

func (d *fakeDevice) Open(string) (Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	d.opens++
	d.open, d.fed = true, guard.Now()
	return d, nil
}

func (d *fakeDevice) Feed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(guard.Now())
	d.fed = guard.Now()
	return d.broken
}

func (d *fakeDevice) Disarm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(guard.Now())
	d.open = false
	return nil
}

func (d *fakeDevice) check(now int64) {
	if end := d.fed + int64(d.timeout); d.open && now > end && (len(d.fired) == 0 || d.fired[len(d.fired)-1] != end) {
		d.fired = append(d.fired, end)
	}
}

// seen is whether it is armed, how often it was, and when it fired first; 0: never.
func (d *fakeDevice) seen() (open bool, opens int, fired int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(guard.Now())
	if len(d.fired) > 0 {
		fired = d.fired[0]
	}
	return d.open, d.opens, fired
}

// standstills notes until it is asked for how long this process stood still at once,
// at most: stopped, or without a processor.
func standstills(t *testing.T) func() time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		most, last := time.Duration(0), time.Now()
		for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			most, last = max(most, time.Since(last)-5*time.Millisecond), time.Now()
		}
		longest <- most
	}()
	return func() time.Duration {
		cancel()
		return <-longest
	}
}

// stop is D, what a takeover allows for stopping.
const stop = 300 * time.Millisecond

// bench is a keeper with a fake device and real guards.
type bench struct {
	*testing.T
	dir    string
	device *fakeDevice
	agent  *Client
	end    context.CancelFunc
	ended  chan error
	guests int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "w") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, dir: dir, device: &fakeDevice{timeout: time.Second}, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	b.end = cancel
	config := Config{Device: "fake", Socket: filepath.Join(dir, "keeper"), Stop: stop, Open: b.device.Open, Log: slog.New(slog.DiscardHandler)}
	listener, err := listen(config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { b.ended <- keep(ctx, config, listener) }()
	t.Cleanup(func() {
		cancel()
		b.agent.Close()
		b.untilEnded()
		os.RemoveAll(dir)
	})
	if b.agent, err = Dial(t.Context(), config.Socket); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) untilEnded() {
	b.Helper()
	select {
	case err := <-b.ended:
		b.ended <- nil
		if err != nil {
			b.Error(err)
		}
	case <-time.After(10 * time.Second):
		b.Error("the keeper does not end")
	}
}

// guest starts a guard with a process that sleeps, and has it looked after.
func (b *bench) guest(deadline int64) *guard.Client {
	b.Helper()
	b.guests++
	path := func(name string) string { return filepath.Join(b.dir, fmt.Sprintf("%d.%s", b.guests, name)) }
	var session guard.Session
	client, err := guard.Start(b.Context(), os.Args[0], guard.Launch{
		Guest: guard.Guest{Name: "web", UUID: fmt.Sprint("guest-", b.guests)}, Argv: []string{"sleep", "600"},
		ConfigPath: path("json"), LogPath: path("log"), Socket: path("sock"), ExitPath: path("exit"),
		Epoch: 7, DeadlineNS: deadline,
	}, &session)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.KillNow(); session.Wait(); client.Close() })
	if s, err := b.agent.Watch(b.Context(), client.Launch().ConfigPath); err != nil || s.Refused != "" {
		b.Fatalf("%+v, %v", s, err)
	}
	return client
}

func (b *bench) guardOf(c *guard.Client) int {
	b.Helper()
	s, err := c.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s.GuardPID
}

// renew keeps a guest's lease of 2 s for a while, as an agent does, and returns the
// last deadline.
func (b *bench) renew(c *guard.Client, for_ time.Duration) (deadline int64) {
	b.Helper()
	for end := guard.Now() + int64(for_); guard.Now() < end; time.Sleep(200 * time.Millisecond) {
		deadline = guard.Now() + 2*second
		if err := c.Renew(b.Context(), 7, deadline); err != nil {
			b.Fatal(err)
		}
	}
	return deadline
}

func (b *bench) until(what string, done func() bool) {
	b.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("never happened: %s", what)
		}
	}
}

func (b *bench) mustNotFire(within time.Duration) {
	b.Helper()
	time.Sleep(within) // to give a fault the time to show
	if _, _, fired := b.device.seen(); fired != 0 {
		b.Error("the host was reset")
	}
}

func (b *bench) armed(want bool) {
	b.Helper()
	b.until(fmt.Sprint("armed: ", want), func() bool { open, _, _ := b.device.seen(); return open == want })
}
