package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/vm/guard"
)

// testRequest creates a guest that counts, as the agent would.
func testRequest(t *testing.T, change func(*Spec)) Request {
	t.Helper()
	h := realHost(t)
	boot := filepath.Join(shortDir(t), "boot.img")
	code, err := os.ReadFile("testdata/boot/disk.bin")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(boot, code, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Spec{Name: "count", Memory: 32 * MiB, Disks: []Disk{{Name: "root", Image: boot, Size: MiB}}}
	if change != nil {
		change(&s)
	}
	s = s.Defaults(h)
	if err := s.Validate(h); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	l := NewLayout(dir+"/s", dir+"/r", dir+"/m", s.UUID)
	if err := Create(t.Context(), s, l, h, nil); err != nil {
		t.Fatal(err)
	}
	return Request{Spec: s, Layout: l, Host: h, DeadlineNS: guard.Forever}
}

func mustStart(t *testing.T, p Platform, r Request) *Guest {
	t.Helper()
	g, err := Start(t.Context(), p, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func mustState(t *testing.T, g *Guest, want RunState) {
	t.Helper()
	got, err := g.RunState(t.Context())
	if err != nil || got != want {
		t.Errorf("state is %s, %v; want %s", got, err, want)
	}
}

func mustEvent(t *testing.T, events <-chan Event, kind EventKind) Event {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("events ended before %s", kind)
			}
			if e.Kind == kind {
				return e
			}
		case <-late:
			t.Fatalf("no %s event", kind)
		}
	}
}

// Both with a plain process as guard and with the real thing.
func TestGuestLife(t *testing.T) {
	plain, _ := testPlatform()
	for name, p := range map[string]Platform{"plain": plain, "guard": realPlatform(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testGuestLife(t, p)
		})
	}
}

func testGuestLife(t *testing.T, p Platform) {
	r := testRequest(t, nil)
	g := mustStart(t, p, r)
	events, cancel := g.Events()
	defer cancel()
	awaitCount(t, r.Layout, 3)
	mustState(t, g, StateRunning)
	info, err := os.Stat(r.Layout.RAM())
	if err != nil || info.Size() != int64(r.Spec.Memory) || info.Mode().Perm() != 0o600 {
		t.Errorf("memory file: %v, %v", info, err)
	}

	if err := g.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustState(t, g, StatePaused)
	if e := mustEvent(t, events, EventRunState); e.State != StatePaused {
		t.Errorf("event says %s", e.State)
	}
	if err := g.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustState(t, g, StateRunning)
	if err := g.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustEvent(t, events, EventReset)
	awaitTrue(t, func() error {
		if lines := strings.Join(serialLines(t, r.Layout), " "); strings.Count(lines, "B") != 2 {
			return errors.New("no second boot: " + lines)
		}
		return nil
	})
	awaitCount(t, r.Layout, 3)

	// A paused guest must be let run to notice the power button.
	if err := g.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	how, err := g.Shutdown(t.Context(), patience)
	if err != nil || how != EndedByGuest {
		t.Errorf("shutdown: %v, %v", how, err)
	}
	mustEvent(t, events, EventShutdown)
	if e := mustEvent(t, events, EventExited); e.State != StateStopped || e.Exit.Reason != ExitStopped {
		t.Errorf("exit event: %+v", e)
	}
	if _, more := <-events; more {
		t.Error("an event after the last")
	}
	mustState(t, g, StateStopped)
	if how, err := g.Shutdown(t.Context(), patience); err != nil || how != EndedAlready {
		t.Errorf("second shutdown: %v, %v", how, err)
	}
	if err := g.Pause(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("pause of a stopped guest: %v", err)
	}
	if err := Clean(p, r.Spec, r.Layout, false); err != nil {
		t.Error(err)
	}
	left, _ := filepath.Glob(r.Layout.Runtime + "/*.sock")
	if _, err := os.Stat(r.Layout.RAM()); !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := Remove(r.Layout); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.Layout.State); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state directory: %v", err)
	}
}

// A guest that switches itself off is told from one that QEMU was ended for,
// and from one whose QEMU was killed from outside.
func TestGuestEnds(t *testing.T) {
	p := realPlatform(t)
	tests := map[string]struct {
		bootable bool
		end      func(*testing.T, *Guest)
		want     ExitReason
	}{
		"by the guest": {true, func(t *testing.T, g *Guest) {
			if err := g.monitor.Execute(t.Context(), "system_powerdown", nil, nil); err != nil {
				t.Error(err)
			}
		}, ExitShutdown},
		"deaf guest": {false, func(t *testing.T, g *Guest) {
			if how, err := g.Shutdown(t.Context(), 50*time.Millisecond); err != nil || how != EndedByQuit {
				t.Errorf("shutdown: %v, %v", how, err)
			}
		}, ExitStopped},
		"killed here": {false, func(t *testing.T, g *Guest) {
			if err := g.Kill(t.Context()); err != nil {
				t.Error(err)
			}
		}, ExitStopped},
		"killed by others": {false, func(t *testing.T, g *Guest) {
			direct := g.guard.(interface{ KillNow() error })
			if err := direct.KillNow(); err != nil {
				t.Error(err)
			}
		}, ExitCrashed},
		"quit by others": {false, func(t *testing.T, g *Guest) {
			_ = g.monitor.Execute(t.Context(), "quit", nil, nil)
		}, ExitStopped},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testRequest(t, func(s *Spec) {
				if !test.bootable {
					s.Disks = nil
				}
			})
			g := mustStart(t, p, r)
			if test.bootable {
				awaitCount(t, r.Layout, 2)
			}
			test.end(t, g)
			select {
			case <-g.Done():
			case <-time.After(patience):
				t.Fatal("the guest did not end")
			}
			if exit := g.Exit(); exit.Reason != test.want {
				t.Errorf("ended by %v, want %s", exit, test.want)
			}
		})
	}
}

func TestStartLeavesNothingBehind(t *testing.T) {
	bad := errors.New("no guard")
	tests := map[string]struct {
		spec    func(*Spec)
		request func(*Request, *Platform, *fakeNetwork)
		is      error
		says    string
	}{
		"QEMU refuses": {nil, func(r *Request, _ *Platform, _ *fakeNetwork) { r.Spec.CPU = "z80" }, ErrLaunch, "unable to find CPU model 'z80'"},
		"no guard": {nil, func(_ *Request, p *Platform, _ *fakeNetwork) {
			p.Launch = func(context.Context, guard.Launch) (Guard, error) { return nil, bad }
		}, bad, "no guard"},
		"guard says why": {nil, func(_ *Request, p *Platform, _ *fakeNetwork) {
			p.Launch = func(context.Context, guard.Launch) (Guard, error) {
				return nil, &guard.GoneError{Record: &guard.ExitRecord{Code: 1, Output: "qemu-system-x86_64: no such thing\n"}}
			}
		}, ErrLaunch, "exit status 1): no such thing"},
		"second bridge missing": {func(s *Spec) { s.NICs = []NIC{{Bridge: "br0"}, {Bridge: "br1"}} },
			func(r *Request, _ *Platform, n *fakeNetwork) { n.fail = r.Spec.TapName(1) }, nil, "nic 1: no such bridge br1"},
		"monitor does not answer": {nil, func(_ *Request, p *Platform, _ *fakeNetwork) {
			p.Dial = func(context.Context, string) (Monitor, error) { return &deafMonitor{}, nil }
		}, ErrLaunch, "query-status"},
		"disk is gone":    {nil, func(r *Request, _ *Platform, _ *fakeNetwork) { os.RemoveAll(r.Layout.Disks()) }, os.ErrNotExist, "disk"},
		"disk is in use":  {nil, func(r *Request, _ *Platform, _ *fakeNetwork) { r.UsedDisks = Files(r.Spec, r.Layout, false) }, ErrInUse, "same file"},
		"not created":     {nil, func(r *Request, _ *Platform, _ *fakeNetwork) { os.RemoveAll(r.Layout.State) }, ErrNotFound, "no directory"},
		"nothing to load": {nil, func(r *Request, _ *Platform, _ *fakeNetwork) { r.Options.Incoming = true }, os.ErrNotExist, "to be resumed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, n := testPlatform()
			r := testRequest(t, test.spec)
			test.request(&r, &p, n)
			_, err := Start(t.Context(), p, r)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error: %v", err)
			}
			left, _ := filepath.Glob(r.Layout.Runtime + "/*")
			memory, _ := filepath.Glob(filepath.Dir(r.Layout.RAM()) + "/*")
			if len(left)+len(memory)+n.count() > 0 {
				t.Errorf("left behind: %v %v, %d taps", left, memory, n.count())
			}
			conn, err := net.Dial("unix", r.Layout.AgentQMP())
			if err == nil {
				conn.Close()
				t.Error("QEMU still runs")
			}
		})
	}
}

// deafMonitor is connected and never answers.
type deafMonitor struct{}

func (*deafMonitor) Execute(context.Context, string, any, any) error {
	return fmt.Errorf("deaf: %w", context.DeadlineExceeded)
}
func (*deafMonitor) Events() (<-chan QEMUEvent, func()) { return nil, func() {} }
func (*deafMonitor) Close() error                       { return nil }

// A failed start of a replica must not take its memory: it is the only copy.
func TestFailedIncomingKeepsMemory(t *testing.T) {
	t.Parallel()
	p, _ := testPlatform()
	r := testRequest(t, nil)
	if err := os.MkdirAll(filepath.Dir(r.Layout.RAM()), 0o700); err != nil {
		t.Fatal(err)
	}
	putRAM(t, r.Layout, r.Spec.Memory)
	r.Options, r.Spec.CPU = Options{Incoming: true}, "z80"
	if _, err := Start(t.Context(), p, r); !errors.Is(err, ErrLaunch) {
		t.Errorf("start: %v", err)
	}
	if info, err := os.Stat(r.Layout.RAM()); err != nil || info.Size() != int64(r.Spec.Memory) {
		t.Errorf("memory: %v", err)
	}
	if err := os.Truncate(r.Layout.RAM(), 4096); err != nil {
		t.Fatal(err)
	}
	r.Spec.CPU = "max"
	if _, err := Start(t.Context(), p, r); err == nil || !strings.Contains(err.Error(), "4KiB") {
		t.Errorf("memory of the wrong size: %v", err)
	}
}

func TestStartRefusesSecondRun(t *testing.T) {
	t.Parallel()
	p, _ := testPlatform()
	r := testRequest(t, nil)
	if err := os.MkdirAll(r.Layout.Runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unixpacket", r.Layout.Guard())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := Start(t.Context(), p, r); !errors.Is(err, ErrRunning) {
		t.Errorf("start: %v", err)
	}
	if err := Remove(r.Layout); !errors.Is(err, ErrRunning) {
		t.Errorf("remove: %v", err)
	}
	if err := Clean(p, r.Spec, r.Layout, false); !errors.Is(err, ErrRunning) {
		t.Errorf("clean: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	p, _ := testPlatform()
	r := testRequest(t, nil)
	first := mustStart(t, p, r)
	awaitCount(t, r.Layout, 2)
	events, _ := first.Events()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, more := <-events; more {
		t.Error("an event after Close")
	}
	reached := lastCount(t, r.Layout)
	second, err := Adopt(t.Context(), p, r.Spec, r.Layout, first.guard)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	mustState(t, second, StateRunning)
	awaitCount(t, r.Layout, reached+2)
	if err := second.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := Adopt(t.Context(), p, r.Spec, r.Layout, first.guard); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), ": stopped (signal 9)") {
		t.Errorf("adopt of a guest that is gone: %v", err)
	}
}
