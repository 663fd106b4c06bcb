package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// recordBound is how long the exit record may take. Clients are told then in any
// case: a dead state disk must not hide that QEMU is gone.
const recordBound = 5 * time.Second

// Main is the guard: it starts QEMU as configPath says and returns when QEMU has
// ended. It changes settings of the whole process and never gives up its thread,
// so the process must end after it. A canceled ctx ends QEMU as SIGTERM does.
func Main(ctx context.Context, configPath string, log *slog.Logger) error {
	// QEMU is killed when the thread that started it ends, so that thread must
	// be this goroutine's own until the process is gone.
	runtime.LockOSThread()
	launch, err := ReadLaunch(configPath)
	if err != nil {
		return err
	}
	calm()
	peers, err := openPeers(launch.Socket)
	if err != nil {
		return err // no exit record: the guard that runs will write its own
	}
	defer peers.close()
	// From here on the files belong to this guard alone.
	for _, leftover := range []string{launch.ExitPath, launch.QMPSocket} {
		_ = syscall.Unlink(leftover)
	}
	output := fileSize(launch.LogPath)
	g, err := start(ctx, &launch, peers, log)
	if err != nil {
		leave(peers, failure(&launch, err), launch.ExitPath, log)
		return err
	}
	runErr := g.run()
	record := g.finish(output)
	leave(peers, &record, launch.ExitPath, log)
	if runErr != nil {
		return fmt.Errorf("guard of %s: %w", launch.Guest.Name, runErr)
	}
	return nil
}

// start checks the lease and starts QEMU.
func start(ctx context.Context, l *Launch, p *peers, log *slog.Logger) (*loop, error) {
	side, err := newSide(log)
	if err != nil {
		return nil, err
	}
	g, err := newLoop(l, p, side)
	if err != nil {
		return nil, err
	}
	if g.lease.expired(Now()) {
		return nil, fmt.Errorf("start QEMU of %s: %w", l.Guest.Name, ErrPastDeadline)
	}
	if g.child, err = spawn(l); err != nil {
		return nil, err
	}
	if err := g.child.limit(l.Limits); err != nil {
		log.Warn("QEMU runs without its limits", "error", err)
	}
	side.start(ctx, l.QMPSocket)
	if g.hard, err = harden(); err != nil {
		side.note(slog.LevelWarn, "guard is not fully protected: "+err.Error(), 0)
	}
	// Only under a unit of Type=notify; elsewhere there is no such socket.
	_, _ = daemon.SdNotify(true, daemon.SdNotifyReady)
	return g, nil
}

// finish makes sure that QEMU is gone, and says how it ended.
func (g *loop) finish(output int64) ExitRecord {
	if !g.reaped {
		g.kill(ReasonKilled)
		ordinary()
		g.status, g.reaped = g.wait()
	}
	g.side.close()
	g.child.close()
	g.close()
	r := newRecord(g.launch)
	r.Epoch, r.PID, r.Code, r.Reason = g.lease.epoch, g.child.pid, g.status.ExitStatus(), ReasonExited
	if g.status.Signaled() {
		r.Signal = int(g.status.Signal())
	}
	if g.ending != "" {
		r.Reason = g.ending
	}
	r.Output, _ = within(recordBound, func() string { return tail(g.launch.LogPath, output) })
	return r
}

func (g *loop) wait() (syscall.WaitStatus, bool) {
	for {
		fds := []unix.PollFd{{Fd: int32(g.child.pidfd), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 1000)
		if status, ok := g.child.reap(); ok {
			return status, true
		}
	}
}

func newRecord(l *Launch) ExitRecord {
	return ExitRecord{LaunchID: l.ID, Guest: l.Guest, Epoch: l.Epoch, Time: time.Now().Truncate(time.Millisecond)}
}

func failure(l *Launch, err error) *ExitRecord {
	r := newRecord(l)
	r.Code, r.Reason, r.Message = -1, ReasonFailed, err.Error()
	if errors.Is(err, ErrPastDeadline) {
		r.Reason = ReasonExpired
	}
	return &r
}

// leave writes the record and then tells the clients, so that one that was told
// finds it.
func leave(p *peers, r *ExitRecord, path string, log *slog.Logger) {
	err, ok := within(recordBound, func() error { return writeExitRecord(path, r) })
	if err != nil || !ok {
		log.Error("leave an exit record", "error", err, "finished", ok)
	}
	p.retire()
	p.broadcast(appendExit(nil, r))
}
