package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"vmctl/vm/guard"
)

// comeUp bounds how long QEMU may take until its monitor answers.
const comeUp = 30 * time.Second

// Request is one start of a guest.
type Request struct {
	Spec    Spec // complete and valid
	Layout  Layout
	Host    Host
	Options Options
	// UsedDisks are the disk files of all other guests of this host (Files).
	UsedDisks []string
	// Epoch and DeadlineNS (CLOCK_BOOTTIME ns) are the lease it starts under.
	Epoch      uint64
	DeadlineNS int64
	Limits     guard.Limits
}

// Start runs a guest that Create made, or with Options.Incoming a QEMU that
// waits for its state. It returns when QEMU's monitor answers. On failure
// nothing is left of the attempt; the error is an ErrLaunch with QEMU's own
// message if QEMU refused, ErrRunning if the guest runs already.
func Start(ctx context.Context, p Platform, r Request) (_ *Guest, err error) {
	var undo undoList
	defer func() {
		if err != nil {
			err = fmt.Errorf("start guest %q: %w", r.Spec.Name, errors.Join(err, undo.run()))
		}
	}()
	if err := checkStart(r); err != nil {
		return nil, err
	}
	if err := prepareRuntime(r.Layout); err != nil {
		return nil, err
	}
	undo.add(func() error { return clearRuntime(r.Layout) })
	if r.Options.Incoming {
		if err := checkRAM(r.Layout.RAM(), r.Spec.MemoryFile()); err != nil {
			return nil, err
		}
	} else {
		if err := makeRAM(r.Layout.RAM(), r.Spec.MemoryFile()); err != nil {
			return nil, err
		}
		undo.add(func() error { return removeFile(r.Layout.RAM()) })
	}
	if err := attachNICs(p.Network, r.Spec, &undo); err != nil {
		return nil, err
	}
	if r.Options.Offline {
		if err := setLinks(p.Network, r.Spec, false); err != nil {
			return nil, err
		}
	}
	warden, err := p.Launch(ctx, launchOf(r))
	if err != nil {
		return nil, launchError(err)
	}
	undo.add(func() error { return endNow(warden) })
	monitor, err := dialUntilUp(ctx, p, warden, r.Layout.AgentQMP())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLaunch, err)
	}
	g, err := newGuest(ctx, p, r.Spec, r.Layout, warden, monitor)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLaunch, err)
	}
	return g, nil
}

// Adopt takes over a guest that runs under its guard, after a restart of the
// agent. The caller keeps the guard's lease; a frozen guest does not answer.
// The error is an ErrStopped that says how, if the guest has ended.
func Adopt(ctx context.Context, p Platform, s Spec, l Layout, warden Guard) (_ *Guest, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("adopt guest %q: %w", s.Name, err)
		}
		var ended *endedError
		if errors.As(err, &ended) {
			err = fmt.Errorf("%w: %w", ErrStopped, err)
		}
	}()
	monitor, err := dialUntilUp(ctx, p, warden, l.AgentQMP())
	if err != nil {
		return nil, err
	}
	return newGuest(ctx, p, s, l, warden, monitor)
}

func checkStart(r Request) error {
	if err := r.Layout.Check(); err != nil {
		return err
	}
	if running(r.Layout) {
		return ErrRunning
	}
	if info, err := os.Stat(r.Layout.State); err != nil || !info.IsDir() {
		return fmt.Errorf("%w: it has no directory %s", ErrNotFound, r.Layout.State)
	}
	for _, path := range Files(r.Spec, r.Layout, r.Options.Replica) {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
	return checkConflicts(r.Spec, r.Layout, r.Options, r.UsedDisks)
}

// guardEnds is how long a guard may be there after its QEMU: it writes down
// how that ended.
const guardEnds = time.Second

// running asks the kernel whether a guard holds the guest's socket. A guard
// that is stopped or busy holds it too.
func running(l Layout) bool {
	for deadline := time.Now().Add(guardEnds); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unixpacket", l.Guard())
		if err != nil {
			return false
		}
		conn.Close()
		if time.Now().After(deadline) {
			return true
		}
	}
}

// prepareRuntime makes the directory of sockets and removes what a start
// before left, so that nothing old is taken for an answer of the new QEMU.
func prepareRuntime(l Layout) error {
	if err := os.MkdirAll(l.Runtime, 0o700); err != nil {
		return err
	}
	if err := clearRuntime(l); err != nil {
		return err
	}
	return removeFile(l.Exit())
}

func clearRuntime(l Layout) error {
	return errors.Join(removeFile(l.AgentQMP()), removeFile(l.GuardQMP()), removeFile(l.Serial()),
		removeFile(l.GuestAgent()), removeFile(l.VNC()), removeFile(l.GuardConfig()))
}

func attachNICs(n Network, s Spec, undo *undoList) error {
	for i, nic := range s.NICs {
		switch tap := s.TapName(i); nic.Type {
		case NICBridge:
			if err := n.Attach(tap, nic.Bridge, nic.MAC); err != nil {
				return fmt.Errorf("nic %d: %w", i, err)
			}
			undo.add(func() error { return n.Remove(tap) })
		case NICTap:
			if err := n.CheckTap(tap); err != nil {
				return fmt.Errorf("nic %d: %w", i, err)
			}
		}
	}
	return nil
}

// Connect brings up the links of a guest that was started Offline.
func Connect(n Network, s Spec) error { return setLinks(n, s, true) }

func setLinks(n Network, s Spec, up bool) error {
	for i, nic := range s.NICs {
		if nic.Type == NICBridge {
			if err := n.SetLink(s.TapName(i), up); err != nil {
				return fmt.Errorf("nic %d: %w", i, err)
			}
		}
	}
	return nil
}

func launchOf(r Request) guard.Launch {
	l := r.Layout
	return guard.Launch{
		Guest:      guard.Guest{Name: r.Spec.Name, UUID: r.Spec.UUID},
		Argv:       Cmdline(r.Spec, l, r.Host, r.Options),
		ConfigPath: l.GuardConfig(),
		LogPath:    l.QEMULog(),
		Socket:     l.Guard(),
		QMPSocket:  l.GuardQMP(),
		ExitPath:   l.Exit(),
		Epoch:      r.Epoch,
		DeadlineNS: r.DeadlineNS,
		Standby:    r.Options.Incoming,
		Isolation:  guard.Isolation(r.Spec.Isolation),
		Limits:     r.Limits,
	}
}

// dialUntilUp waits for the monitor's socket, or for QEMU to give up.
func dialUntilUp(ctx context.Context, p Platform, warden Guard, socket string) (Monitor, error) {
	ctx, cancel := context.WithTimeout(ctx, comeUp)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		monitor, err := p.Dial(ctx, socket)
		if err == nil {
			return monitor, nil
		}
		select {
		case <-warden.Gone():
			return nil, &endedError{ending{}.exit(warden.Record())}
		case <-ctx.Done():
			return nil, fmt.Errorf("its monitor %s does not answer: %w", filepath.Base(socket), err)
		case <-retry.C:
		}
	}
}

// endedError: QEMU is gone.
type endedError struct{ exit Exit }

func (e *endedError) Error() string { return e.exit.String() }

// launchError gives QEMU's message where the guard knows it.
func launchError(err error) error {
	if errors.Is(err, guard.ErrRunning) {
		return fmt.Errorf("%w: %w", ErrRunning, err)
	}
	var gone *guard.GoneError
	if errors.As(err, &gone) && gone.Record != nil {
		return fmt.Errorf("%w: %s", ErrLaunch, ending{}.exit(gone.Record))
	}
	return fmt.Errorf("%w: %w", ErrLaunch, err)
}

// endNow kills QEMU and waits, so that its files can be removed.
func endNow(warden Guard) error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	killErr := killBy(ctx, warden)
	select {
	case <-warden.Gone():
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("QEMU does not end: %w", ctx.Err()), killErr)
	}
}

// killBy has the guard kill QEMU; if it does not, and the connection can, QEMU
// is killed without it.
func killBy(ctx context.Context, warden Guard) error {
	patience, cancel := context.WithTimeout(ctx, guardAnswer)
	defer cancel()
	err := warden.Kill(patience)
	if direct, ok := warden.(interface{ KillNow() error }); ok && err != nil {
		return direct.KillNow()
	}
	return err
}
