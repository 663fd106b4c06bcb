package guard

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// realQEMU makes the bench's guest an empty machine with two monitors.
func realQEMU(b *bench, more ...string) (agentQMP string) {
	agentQMP = filepath.Join(filepath.Dir(b.launch.ConfigPath), "agent.qmp")
	b.launch.Env = []string{"PATH=/usr/bin:/bin"}
	b.launch.Argv = append([]string{
		"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-machine", "q35", "-accel", "tcg", "-smp", "2", "-m", "32M", "-S",
		"-qmp", "unix:" + b.launch.QMPSocket + ",server=on,wait=off",
		"-qmp", "unix:" + agentQMP + ",server=on,wait=off",
	}, more...)
	return agentQMP
}

func TestRealQEMU(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	agentQMP := realQEMU(b)
	b.start()
	var agent *monitor
	var err error
	b.until("monitor of the agent", func() bool { agent, err = dialMonitor(t.Context(), agentQMP); return err == nil })
	do := func(command string, reply any) {
		t.Helper()
		if err := agent.execute(command, 10*time.Second, reply); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) bool {
		var s struct{ Status string }
		do("query-status", &s)
		return s.Status == want
	}
	pid := b.client.PID()
	do("cont", nil)

	// The agent does not come back from a pause.
	if err := b.client.BeginPause(t.Context(), 1, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	do("stop", nil)
	b.until("QEMU continued by the guard", func() bool { return is("running") })
	if ended, err := b.client.EndPause(t.Context(), 1); !ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}

	// The lease ends and is renewed.
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	if running := runningThreads(t, pid); len(running) > 0 {
		t.Errorf("threads not stopped: %v", running)
	}
	if err := agent.execute("query-status", 100*time.Millisecond, nil); err == nil {
		t.Error("a frozen QEMU answers")
	}
	agent.close()
	b.renew(Forever)
	if agent, err = dialMonitor(t.Context(), agentQMP); err != nil {
		t.Fatal(err)
	}
	if !is("running") {
		t.Error("QEMU does not run after the thaw")
	}
	if s := b.status(); s.PID != pid {
		t.Error("another process")
	}
	if err := b.client.Terminate(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if r := b.untilDone(); r.Reason != ReasonTerminated || r.Code != 0 || r.Signal != 0 {
		t.Errorf("QEMU did not end in order: %+v", r)
	}
}

// A standby is paused as a checkpoint leaves a guest: its guard does not let it run,
// whoever asks, before it is claimed.
func TestGuardLeavesStandbyPaused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.launch.Standby = true
	agentQMP := realQEMU(b)
	b.start()
	var agent *monitor
	var err error
	b.until("monitor of the agent", func() bool { agent, err = dialMonitor(t.Context(), agentQMP); return err == nil })
	defer agent.close()
	is := func(want string) bool {
		var s struct{ Status string }
		if err := agent.execute("query-status", 10*time.Second, &s); err != nil {
			t.Fatal(err)
		}
		return s.Status == want
	}
	for _, command := range []string{"cont", "stop"} { // as a loaded state does
		if err := agent.execute(command, 10*time.Second, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.client.BeginPause(t.Context(), 1, time.Millisecond); !errors.Is(err, ErrUnclaimed) {
		t.Errorf("pause: %v", err)
	}
	if err := b.client.Renew(t.Context(), 7, Forever); !errors.Is(err, ErrUnclaimed) {
		t.Errorf("renewal: %v", err)
	}
	time.Sleep(2 * qmpSettle)
	if s := b.status(); !is("paused") || s.Resuming || s.LastPause != 0 || !s.Standby {
		t.Errorf("it was touched: %+v", s)
	}
	if err := b.client.Claim(t.Context(), 8, Forever); err != nil {
		t.Fatal(err)
	}
	if err := b.client.BeginPause(t.Context(), 1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	b.until("QEMU continued by the guard", func() bool { return is("running") })
}

// The user gets to read what QEMU itself says.
func TestQEMUsOwnMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	realQEMU(b, "-blockdev", "driver=file,node-name=f0,filename=/nonexistent/disk.raw")
	client, err := Start(t.Context(), os.Args[0], b.launch, &b.launcher)
	if err == nil {
		_ = client.Close() // QEMU binds its monitors before it opens disks
	} else if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "/nonexistent/disk.raw") {
		t.Errorf("error %v", err)
	}
	b.until("exit record", func() bool { _, err := ReadExitRecord(b.launch.ExitPath); return err == nil })
	if r, err := ReadExitRecord(b.launch.ExitPath); err != nil || r.Code != 1 || !strings.Contains(r.Output, "/nonexistent/disk.raw") {
		t.Errorf("record %+v, %v", r, err)
	}
}
