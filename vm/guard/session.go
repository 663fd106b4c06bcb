package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// goneLike says that no guard is at the other end (any more), as opposed to one
// that does not answer or is not ours.
func goneLike(err error) bool {
	return errors.Is(err, ErrGone) || errors.Is(err, ErrDetached) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// Session is the Launcher for hosts without systemd: the guard gets a session of
// its own, so that no signal for the agent's group or terminal reaches it. The zero
// value is ready for use.
type Session struct{ children sync.WaitGroup }

// Launch implements Launcher. Guard output goes to the guest's log.
func (s *Session) Launch(_ context.Context, exe, config string, l Launch) (<-chan struct{}, error) {
	return s.Run(l.LogPath, exe, "guard", config)
}

// Run starts exe, whose output is appended to logPath. gone is closed when it ended.
func (s *Session) Run(logPath, exe string, args ...string) (gone <-chan struct{}, err error) {
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", args[0], err)
	}
	defer log.Close()
	// Not bound to ctx: the guard outlives whoever started it.
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.Env = withoutServiceEnv(os.Environ())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", args[0], err)
	}
	ended := make(chan struct{})
	// A guard that ends while the agent lives must not stay a zombie.
	s.children.Go(func() {
		defer close(ended)
		if p, err := openProcess(cmd.Process.Pid); err == nil {
			_ = p.wait() // parks the goroutine; the Wait below alone would hold a thread
			p.close()
		}
		_ = cmd.Wait()
	})
	return ended, nil
}

// Wait returns when all guards started here have ended, which is when their guests
// have. An agent that leaves its guests running does not call it.
func (s *Session) Wait() { s.children.Wait() }
