package guard

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStartFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(l *Launch)
		want   error
		says   string
		reason Reason
	}{
		{"expired", func(l *Launch) { l.DeadlineNS = Now() - 1 }, ErrPastDeadline, "get a new one and start again", ReasonExpired},
		{"no program", func(l *Launch) { l.Argv = []string{"qemu-system-none"} }, nil, "qemu-system-none", ReasonFailed},
		{"QEMU fails", func(l *Launch) { l.Env = append(l.Env, "FAKE_EXIT=1") }, ErrGone, "cannot open disk", ReasonExited},
		{"no log", func(l *Launch) { l.LogPath = "/nonexistent/log" }, nil, "/nonexistent/log", ""},
		{"relative", func(l *Launch) { l.Socket = "guard.sock" }, nil, "absolute", ""},
		{"long socket", func(l *Launch) { l.Socket = "/" + strings.Repeat("x", 120) }, nil, "longer than 107", ""},
		{"no such directory", func(l *Launch) { l.Socket = "/nonexistent/guard.sock" }, nil, "/nonexistent", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			c.change(&b.launch)
			client, err := Start(t.Context(), os.Args[0], b.launch, &b.launcher)
			if err == nil { // it may take QEMU longer to fail than Start waits for it
				b.client, b.clients = client, []*Client{client}
				r := b.untilDone()
				err = &GoneError{Record: &r}
			}
			if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q, want %v and %q", err, c.want, c.says)
			}
			if r, err := ReadExitRecord(b.launch.ExitPath); c.reason != r.Reason {
				t.Errorf("record %+v, %v; want reason %q", r, err, c.reason)
			}
			if c.reason == ReasonExpired && b.board.ticks() != 0 {
				t.Error("QEMU was started without a lease")
			}
		})
	}
}

// Two guards for one guest would be two running copies.
func TestSecondGuardIsRefused(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	config, err := os.ReadFile(b.launch.ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), os.Args[0], b.launch, &b.launcher); !errors.Is(err, ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	if now, _ := os.ReadFile(b.launch.ConfigPath); string(now) != string(config) {
		t.Error("the configuration of the running guard was replaced")
	}
	out, err := exec.Command(os.Args[0], "guard", b.launch.ConfigPath).CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrRunning.Error()) {
		t.Errorf("second guard: %v: %s", err, out)
	}
	b.untilTicks()
	if _, err := os.Stat(b.launch.ExitPath); err == nil {
		t.Error("the guard that was refused left an exit record")
	}
}

func TestStartAgainAfterEnd(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	first := b.status()
	// Killed: socket, lock file and QMP socket stay behind.
	_ = syscall.Kill(first.GuardPID, syscall.SIGKILL)
	b.untilDone()
	b.start()
	b.untilTicks()
	if s := b.status(); s.PID == first.PID || s.LaunchID == first.LaunchID {
		t.Errorf("status of the second start: %+v", s)
	}
}

func TestLimitsAndEnvironment(t *testing.T) {
	t.Parallel()
	b := newBench(t, "NOTIFY_SOCKET=/run/systemd/notify")
	score, nice := 250, 3
	b.launch.Limits = Limits{OOMScoreAdj: &score, Nice: &nice}
	b.start()
	dir := "/proc/" + strconv.Itoa(b.client.PID())
	if got, _ := os.ReadFile(dir + "/oom_score_adj"); strings.TrimSpace(string(got)) != "250" {
		t.Errorf("oom_score_adj %s", got)
	}
	if got, _ := syscall.Getpriority(syscall.PRIO_PROCESS, b.client.PID()); 20-got != nice {
		t.Errorf("nice %d", 20-got)
	}
	if env, _ := os.ReadFile(dir + "/environ"); strings.Contains(string(env), "NOTIFY_SOCKET") {
		t.Error("QEMU could speak for its service")
	}
	if info, err := os.Stat(b.launch.ConfigPath); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("configuration: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(b.launch.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
}

func TestStandbyIsClaimedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.launch.Standby = true
	b.start()
	ctx := t.Context()
	if err := b.client.Claim(ctx, 6, Forever); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("stale claim: %v", err)
	}
	if err := b.client.Renew(ctx, 7, Forever); !errors.Is(err, ErrUnclaimed) {
		t.Errorf("renewal before the claim: %v", err)
	}
	if err := b.client.BeginPause(ctx, 1, time.Millisecond); !errors.Is(err, ErrUnclaimed) {
		t.Errorf("pause before the claim: %v", err)
	}
	for { // as lapse does
		deadline := soon(200 * time.Millisecond)
		if err := b.client.Claim(ctx, 9, deadline); err == nil {
			break
		} else if !errors.Is(err, ErrPastDeadline) || Now() < deadline {
			t.Fatal(err)
		}
	}
	b.untilStopped()
	if err := b.client.Renew(ctx, 7, Forever); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("renewal under the standby's epoch: %v", err)
	}
	if err := b.client.Claim(ctx, 10, Forever); !errors.Is(err, ErrNotStandby) {
		t.Errorf("second claim: %v", err)
	}
	if err := b.client.Renew(ctx, 9, Forever); err != nil {
		t.Errorf("renewal: %v", err)
	}
	b.untilTicks()
}

// impostor answers every status request with s.
func impostor(t *testing.T, s Status) (config string) {
	b := newBench(t)
	l := withID(b.launch)
	if err := WriteLaunch(l); err != nil {
		t.Fatal(err)
	}
	s.UUID = l.Guest.UUID
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: l.Socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var buf [maxMessage]byte
			if n, err := conn.Read(buf[:]); err == nil {
				if r, err := decodeRequest(buf[:n]); err == nil {
					_, _ = conn.Write(s.append(appendOK(nil, r.tag)))
				}
			}
			defer conn.Close()
		}
	}()
	return l.ConfigPath
}

func TestAttachRefusesAnotherProcess(t *testing.T) {
	t.Parallel()
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self := Status{GuardPID: os.Getpid(), PID: os.Getpid(), StartTime: start}
	reused, other, gone := self, self, self
	reused.StartTime++
	other.GuardPID = 1
	gone.PID = 1 << 30
	for _, c := range []struct {
		name   string
		status Status
		ok     bool
		gone   bool
	}{
		{"the same", self, true, false},
		{"pid used again", reused, false, true},
		{"pid unused", gone, false, true},
		{"not the listener", other, false, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		client, err := Attach(ctx, impostor(t, c.status))
		cancel()
		if (err == nil) != c.ok || errors.Is(err, ErrGone) != c.gone {
			t.Errorf("%s: %v", c.name, err)
		}
		if client != nil {
			_ = client.Close()
		}
	}
	if _, err := Attach(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNoGuard) {
		t.Errorf("without configuration: %v", err)
	}
}

// A start that was given up leaves no guest behind that nobody would look after.
func TestAbandonedStart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.launch.QMPSocket += ".never" // Start waits for it, as for a slow QEMU
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for b.board.ticks() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if c, err := Start(ctx, os.Args[0], b.launch, &b.launcher); err == nil {
		b.clients = []*Client{c}
		t.Fatal("it started")
	}
	b.until("QEMU is gone", func() bool { return fileSize(b.launch.ExitPath) > 0 })
	b.launcher.Wait()
}
