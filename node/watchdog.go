package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/vm/guard"
	"vmctl/vm/guard/watchdog"
)

const (
	// keeperAgain is the wait before the next try to reach or start the keeper.
	keeperAgain = 500 * time.Millisecond
	// keeperLook is how often it is asked how it is.
	keeperLook = time.Second
	// keeperStarts is how long a keeper may take until it answers.
	keeperStarts = 5 * time.Second
)

// keeping is this agent's end of the host's watchdog: a process of its own feeds the
// device, here it is started, told which guards to look after, and asked how it is.
type keeping struct {
	device, socket, logPath, exe string
	alarm                        func(on bool, text string)
	log                          *slog.Logger
	session                      guard.Session

	mu     sync.Mutex
	guards map[string]string // configuration files by the ids of their launches
	kick   chan struct{}     // capacity 1
}

func newKeeping(n *Node) *keeping {
	return &keeping{
		device: n.config.Watchdog, socket: filepath.Join(n.config.RuntimeDir, "watchdog.sock"),
		logPath: filepath.Join(n.config.StateDir, "watchdog.log"), exe: n.exe, log: n.log,
		alarm:  func(on bool, text string) { n.alarms.set("watchdog", "", on, text) },
		guards: map[string]string{}, kick: make(chan struct{}, 1),
	}
}

// cover has a guard looked after until the returned function is called. The keeper
// goes on by itself until the guest is gone.
func (k *keeping) cover(l guard.Launch) (uncover func()) {
	k.mu.Lock()
	k.guards[l.ID] = l.ConfigPath
	k.mu.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.guards, l.ID)
	}
}

func (k *keeping) covered() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.guards)
}

// run keeps a keeper there until ctx ends; it goes on without this agent.
func (k *keeping) run(ctx context.Context) {
	if k.device == "" {
		return
	}
	for ctx.Err() == nil {
		client, err := k.reach(ctx)
		if err != nil {
			if ctx.Err() == nil {
				k.alarm(true, fmt.Sprintf("the watchdog %s is not fed: %v; guests run without it", k.device, err))
				pause(ctx, keeperAgain)
			}
			continue
		}
		if err := k.tend(ctx, client); err != nil && ctx.Err() == nil {
			k.log.Warn("the keeper of the watchdog is lost, another is started", "error", err)
		}
		_ = client.Close()
	}
}

// reach connects to the keeper, and starts it if there is none.
func (k *keeping) reach(ctx context.Context) (*watchdog.Client, error) {
	if client, err := watchdog.Dial(ctx, k.socket); err == nil {
		return client, nil
	}
	gone, err := k.session.Run(k.logPath, k.exe, "watchdog", k.device, k.socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, keeperStarts)
	defer cancel()
	for {
		client, err := watchdog.Dial(ctx, k.socket)
		if err == nil {
			return client, nil
		}
		select {
		case <-gone:
			return nil, fmt.Errorf("its keeper has ended, see %s", k.logPath)
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// tend names guards to the keeper, each once, and asks it how it is.
func (k *keeping) tend(ctx context.Context, client *watchdog.Client) error {
	ticker := time.NewTicker(keeperLook)
	defer ticker.Stop()
	known := map[string]bool{}
	for {
		refused := ""
		for id, config := range k.covered() {
			if known[id] {
				continue
			}
			state, err := client.Watch(ctx, config)
			if err != nil {
				return err
			}
			if known[id] = state.Refused == ""; !known[id] {
				refused = state.Refused
			}
		}
		state, err := client.State(ctx)
		if err != nil {
			return err
		}
		text := k.wrong(state, refused)
		k.alarm(text != "", text)
		select {
		case <-k.kick:
		case <-ticker.C:
		case <-client.Gone():
			return watchdog.ErrGone
		case <-ctx.Done():
			return nil
		}
	}
}

// wrong says what its user should know of the watchdog, or nothing.
func (k *keeping) wrong(s watchdog.State, refused string) string {
	_, missing := os.Stat(k.device) // to open it would arm it
	switch {
	case missing != nil && !s.Armed:
		return fmt.Sprintf("there is no watchdog %s (%v): load its driver, see `vmctl doctor`; guests run without it", k.device, missing)
	case s.Device != k.device:
		return fmt.Sprintf("the watchdog %s is fed, not %s, until its guests are gone", s.Device, k.device)
	case s.Failure != "":
		return fmt.Sprintf("the watchdog %s does not work: %s; guests run without it", k.device, s.Failure)
	case refused != "":
		return fmt.Sprintf("a guest runs without the watchdog: %s", refused)
	case s.LateSeconds > 0:
		return fmt.Sprintf("the watchdog %s takes no timeout below %.0f s: it would reset this host %.2f s later than a takeover allows",
			k.device, s.TimeoutSeconds, s.LateSeconds)
	}
	return ""
}

// WatchdogStop is what a takeover allows a guest's host for stopping it.
func WatchdogStop() time.Duration { return ha.DefaultTiming().Stop }

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
