package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	answerPoll = 2 * time.Millisecond
	// earlyBound is how long Start waits for QEMU's monitor to appear, only to
	// report a QEMU that ends at once. The lease must be renewed soon after.
	earlyBound   = 500 * time.Millisecond
	abandonBound = 2 * time.Second
)

// Launcher starts `exe guard config` as a process that outlives the caller.
type Launcher interface {
	// Launch returns once the process was started. gone is closed when it is known
	// to have ended; nil if that is not observed.
	Launch(ctx context.Context, exe, config string, l Launch) (gone <-chan struct{}, err error)
}

// Start writes the configuration, has a guard started, and waits until it answers.
// exe is the vmctl binary. If QEMU ends at once, or cannot be started, the error
// carries its own last words; it is an ErrPastDeadline if the lease ended before.
// ErrRunning: a guard runs for this guest already; Attach to it.
func Start(ctx context.Context, exe string, l Launch, launcher Launcher) (*Client, error) {
	if l.ID == "" {
		l.ID = rand.Text()
	}
	fail := func(err error) (*Client, error) {
		return nil, fmt.Errorf("start guest %s: %w", l.Guest.Name, err)
	}
	if err := l.Validate(); err != nil {
		return fail(err)
	}
	if answers(ctx, l) {
		return fail(fmt.Errorf("%w (socket %s)", ErrRunning, l.Socket))
	}
	if err := WriteLaunch(l); err != nil {
		return fail(err)
	}
	output := fileSize(l.LogPath)
	gone, err := launcher.Launch(ctx, exe, l.ConfigPath, l)
	if err != nil {
		if r, ok := recordOf(l); ok {
			err = notStarted(r) // the guard knows better than whoever started it
		}
		return fail(err)
	}
	c, err := await(ctx, l, gone, output)
	if err != nil {
		if ctx.Err() != nil {
			abandon(ctx, l)
		}
		return fail(err)
	}
	return c, nil
}

// answers says whether a guard is there, or one that is stopped. One that is just
// ending may still be connected to, but hangs up.
func answers(ctx context.Context, l Launch) bool {
	ctx, cancel := context.WithTimeout(ctx, earlyBound)
	defer cancel()
	for {
		c, err := dial(ctx, l)
		if err != nil {
			return false
		}
		_, err = c.Status(ctx)
		_ = c.Close()
		if !errors.Is(err, ErrDetached) {
			return true
		}
		select {
		case <-time.After(answerPoll):
		case <-ctx.Done():
			return true
		}
	}
}

// await connects as soon as the new guard answers.
func await(ctx context.Context, l Launch, gone <-chan struct{}, output int64) (*Client, error) {
	for {
		c, err := dial(ctx, l)
		if err == nil {
			if c, err = settle(ctx, c, l); err == nil {
				return c, nil
			}
		}
		if r, ok := recordOf(l); ok {
			return nil, notStarted(r)
		}
		if errors.Is(err, ErrRunning) {
			return nil, err
		}
		select {
		case <-time.After(answerPoll):
		case <-gone:
			if r, ok := recordOf(l); ok {
				return nil, notStarted(r)
			}
			return nil, fmt.Errorf("the guard ended before it answered: %s", lastWords(l.LogPath, output))
		case <-ctx.Done():
			return nil, fmt.Errorf("the guard does not answer (%w): %w; %s", err, ctx.Err(), lastWords(l.LogPath, output))
		}
	}
}

// abandon ends what may have been started: the caller takes the guest for not
// started and would not renew its lease, which may be Forever. A guard that has not
// come so far as to read its configuration finds none.
func abandon(ctx context.Context, l Launch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonBound)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := dial(ctx, l); err == nil {
			s, err := c.identify(ctx)
			if err == nil && s.LaunchID == l.ID {
				err = c.Kill(ctx)
			}
			_ = c.Close()
			if err == nil {
				return
			}
		}
		if _, ended := recordOf(l); ended {
			return
		}
		_ = os.Remove(l.ConfigPath)
		select {
		case <-time.After(answerPoll):
		case <-ctx.Done():
		}
	}
}

// settle identifies the guard and gives QEMU a moment to fail early. It takes over
// c: on an error it is closed.
func settle(ctx context.Context, c *Client, l Launch) (*Client, error) {
	s, err := c.identify(ctx)
	if err == nil && s.LaunchID != l.ID {
		err = fmt.Errorf("%w (pid %d)", ErrRunning, s.GuardPID)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	bound := time.After(earlyBound)
	for l.QMPSocket != "" {
		if _, err := os.Stat(l.QMPSocket); err == nil {
			return c, nil
		}
		select {
		case <-time.After(answerPoll):
		case <-c.Done():
			_ = c.Close()
			return nil, ErrGone
		case <-bound:
			return c, nil
		case <-ctx.Done():
			_ = c.Close()
			return nil, ctx.Err()
		}
	}
	return c, nil
}

// recordOf finds the exit record of this launch, not one left by an earlier one.
func recordOf(l Launch) (*ExitRecord, bool) {
	r, err := ReadExitRecord(l.ExitPath)
	if err != nil || r.LaunchID != l.ID {
		return nil, false
	}
	return &r, true
}

func notStarted(r *ExitRecord) error {
	switch r.Reason {
	case ReasonExpired:
		return fmt.Errorf("%w: the lease ended before QEMU was started; get a new one and start again", ErrPastDeadline)
	case ReasonFailed:
		return errors.New(r.Message)
	}
	return &GoneError{Record: r, Detail: "it ended at once"}
}

func lastWords(path string, from int64) string {
	if words := strings.TrimSpace(tail(path, from)); words != "" {
		return "its log says:\n" + words
	}
	return "its log " + path + " says nothing"
}

// Attach connects to a running guard, as an agent does after a restart, and makes
// sure that its QEMU is the process the guard means. ErrGone (a *GoneError, with
// the exit record if there is one): there is nothing to adopt any more. ErrNoGuard:
// none was ever started with this configuration file.
func Attach(ctx context.Context, configPath string) (*Client, error) {
	l, err := ReadLaunch(configPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("adopt guest: %w: %w", ErrNoGuard, err)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt guest: %w", err)
	}
	c, err := dial(ctx, l)
	if err == nil {
		if _, err = c.identify(ctx); err != nil {
			_ = c.Close()
		}
	}
	if err == nil {
		return c, nil
	}
	if ctx.Err() == nil && goneLike(err) {
		gone := &GoneError{Detail: err.Error()}
		if r, readErr := ReadExitRecord(l.ExitPath); readErr == nil {
			gone.Record = &r
		}
		err = gone
	}
	return nil, fmt.Errorf("adopt guest %s: %w", l.Guest.Name, err)
}
