package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"vmctl/vm/guard"
	"vmctl/vm/guard/watchdog"
)

const (
	device = "/dev/watchdog"
	socket = "/keeper"
	lease  = int64(2 * time.Second)
	long   = 4 * time.Second // four times the device's timeout
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx := context.Background()
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "guard":
		err = guard.Main(ctx, os.Args[2], log)
	case len(os.Args) == 2 && os.Args[1] == "watchdog":
		err = watchdog.Main(ctx, watchdog.Config{Device: device, Socket: socket, Stop: 300 * time.Millisecond, Open: watchdog.Open, Log: log})
	default:
		err = trial(ctx)
	}
	if err != nil {
		say("FAILED: %v", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Printf("trial: "+format+"\n", args...) }

func trial(ctx context.Context) error {
	say("device %+v", watchdog.Look(device))
	keeper := exec.Command("/proc/self/exe", "watchdog")
	keeper.Stdout, keeper.Stderr = os.Stdout, os.Stderr
	if err := keeper.Start(); err != nil {
		return err
	}
	var agent *watchdog.Client
	err := until(func() (err error) { agent, err = watchdog.Dial(ctx, socket); return err })
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *watchdog.Client) error{isolated, disarmed, stuck} {
		if err := step(ctx, agent); err != nil {
			return err
		}
	}
	return nil
}

// isolated lets a lease end: the guest is frozen, the host lives on.
func isolated(ctx context.Context, agent *watchdog.Client) error {
	guest, err := begin(ctx, agent, "one")
	if err != nil {
		return err
	}
	say("armed")
	if err := renew(ctx, guest, long); err != nil {
		return err
	}
	say("fed for %v", long)
	if err := until(func() error { return stopped(ctx, guest) }); err != nil {
		return err
	}
	time.Sleep(long)
	if err := stopped(ctx, guest); err != nil {
		return err
	}
	say("frozen for %v", long)
	return errors.Join(renew(ctx, guest, time.Second), guest.Kill(ctx))
}

// disarmed waits longer than the device would after the last guest's end.
func disarmed(ctx context.Context, agent *watchdog.Client) error {
	if err := until(func() error { return is(ctx, agent, false) }); err != nil {
		return err
	}
	time.Sleep(long)
	say("disarmed for %v, active: %v", long, watchdog.Look(device).Active)
	return nil
}

// stuck stops a guard: nothing but the device can stop the guest.
func stuck(ctx context.Context, agent *watchdog.Client) error {
	guest, err := begin(ctx, agent, "two")
	if err != nil {
		return err
	}
	if err := renew(ctx, guest, time.Second); err != nil {
		return err
	}
	s, err := guest.Status(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(s.GuardPID, syscall.SIGSTOP); err != nil {
		return err
	}
	say("guard stopped")
	for range 200 {
		say("alive %d ms after the deadline", (guard.Now()-s.Deadline)/1e6)
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the host was not reset")
}

func begin(ctx context.Context, agent *watchdog.Client, name string) (*guard.Client, error) {
	guest, err := guard.Start(ctx, "/proc/self/exe", guard.Launch{
		Guest: guard.Guest{Name: name, UUID: name}, Argv: []string{"/bin/busybox", "sleep", "600"},
		ConfigPath: "/" + name + ".json", LogPath: "/" + name + ".log", Socket: "/" + name + ".sock", ExitPath: "/" + name + ".exit",
		Epoch: 1, DeadlineNS: guard.Now() + lease,
	}, &guard.Session{})
	if err != nil {
		return nil, err
	}
	if s, err := agent.Watch(ctx, guest.Launch().ConfigPath); err != nil || s.Refused != "" {
		return nil, fmt.Errorf("%s, %w", s.Refused, err)
	}
	return guest, until(func() error { return is(ctx, agent, true) })
}

func renew(ctx context.Context, guest *guard.Client, for_ time.Duration) error {
	for end := time.Now().Add(for_); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := guest.Renew(ctx, 1, guard.Now()+lease); err != nil {
			return err
		}
	}
	return nil
}

func stopped(ctx context.Context, guest *guard.Client) error {
	s, err := guest.Status(ctx)
	if err == nil && !s.Stopped {
		err = errors.New("the guest runs")
	}
	return err
}

func is(ctx context.Context, agent *watchdog.Client, armed bool) error {
	s, err := agent.State(ctx)
	if err == nil && s.Armed != armed {
		err = fmt.Errorf("want armed %v: %+v", armed, s)
	}
	return err
}

func until(done func() error) (err error) {
	for range 500 {
		if err = done(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
