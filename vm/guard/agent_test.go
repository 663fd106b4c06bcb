package guard

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// fakeAgent attaches to a guard as a process of its own, announces a pause if
// asked to, and renews the lease until it is killed or stopped.
func fakeAgent() error {
	ctx := context.Background()
	c, err := Attach(ctx, os.Getenv("AGENT_CONFIG"))
	if err != nil {
		return err
	}
	b, err := openBoard(os.Getenv("AGENT_BOARD"))
	if err != nil {
		return err
	}
	if os.Getenv("AGENT_PAUSE") != "" {
		if err := c.BeginPause(ctx, 1, time.Minute); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for {
		deadline := Now() + int64(300*time.Millisecond)
		if err := c.Renew(ctx, c.Launch().Epoch, deadline); err == nil {
			b.Deadline.Store(deadline)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// fakeStarter starts a guard that hangs on this process's lifeline.
func fakeStarter() error {
	l, err := ReadLaunch(os.Getenv("AGENT_CONFIG"))
	if err != nil {
		return err
	}
	hold, err := newLifeline(l.ConfigPath + ".lifeline")
	if err != nil {
		return err
	}
	defer hold.Close()
	c, err := Start(context.Background(), os.Args[0], l, &Session{})
	if err != nil {
		return err
	}
	s, err := c.Status(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(s.GuardPID, s.PID)
	select {}
}

// run starts this binary in a role and returns its first line of output.
func (b *bench) run(role string, env ...string) (*exec.Cmd, string) {
	b.Helper()
	cmd := exec.Command(b.exe)
	cmd.Env = append(os.Environ(), append(env, "GUARD_TEST_ROLE="+role,
		"AGENT_CONFIG="+b.launch.ConfigPath, "AGENT_BOARD="+b.launch.ConfigPath+".board")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("%s process: %v", role, err)
	}
	return cmd, strings.TrimSpace(line)
}

func (b *bench) agentBoard() *board {
	b.Helper()
	board, err := openBoard(b.launch.ConfigPath + ".board")
	if err != nil {
		b.Fatal(err)
	}
	return board
}

// A dead or stopped agent is what a lease is for: the guard acts on time alone.
func TestGuardFreezesWithoutAgent(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		b := startBench(t)
		agent, _ := b.run("agent")
		seen := b.agentBoard()
		b.until("renewal", func() bool { return seen.Deadline.Load() != 0 })
		_ = agent.Process.Kill()
		b.frozenAt(seen)
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		b := startBench(t)
		agent, _ := b.run("agent")
		seen := b.agentBoard()
		b.until("renewal", func() bool { return seen.Deadline.Load() != 0 })
		_ = agent.Process.Signal(stopSignal)
		b.frozenAt(seen)
		pid := b.status().PID
		_ = agent.Process.Signal(contSignal)
		b.untilTicks()
		if s := b.status(); s.PID != pid {
			t.Errorf("a thawed guest has another process: %d, was %d", s.PID, pid)
		}
	})
}

// frozenAt waits for the freeze and compares it with the last deadline granted.
func (b *bench) frozenAt(seen *board) {
	b.Helper()
	b.untilStopped()
	deadline := seen.Deadline.Load()
	if s := b.status(); s.Deadline < deadline {
		b.Errorf("guard has deadline %d, the agent was granted %d", s.Deadline, deadline)
	}
	b.mustBeStill()
	last := b.board.lastTick()
	b.Logf("last tick %v after the deadline, stop sent after %v",
		time.Duration(last-b.status().Deadline), time.Duration(b.status().FreezeNS))
}

// The tests' own safety net: no process outlives a killed test binary.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := WriteLaunch(withID(b.launch)); err != nil {
		t.Fatal(err)
	}
	starter, line := b.run("starter")
	var guardPID, qemuPID int
	if _, err := fmt.Sscan(line, &guardPID, &qemuPID); err != nil {
		t.Fatal(err)
	}
	if !alive(guardPID) || !alive(qemuPID) {
		t.Fatal("guard or QEMU does not run")
	}
	_ = starter.Process.Kill()
	b.until("guard and QEMU are gone", func() bool { return !alive(guardPID) && !alive(qemuPID) })
}

func withID(l Launch) Launch {
	l.ID = "test"
	return l
}
