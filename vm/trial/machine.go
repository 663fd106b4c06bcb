package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"vmctl/vm"
	"vmctl/vm/qmp"
)

// Bound is the longest a trial takes, on one side.
const Bound = 20 * time.Second

// diskSize is that of a trial's disks, in bytes: no state holds it.
const diskSize = 1 << 20

// machine is a QEMU that never executes its guest.
type machine struct {
	layout  vm.Layout
	monitor *qmp.Client
	said    string // the file with what QEMU has to say
}

// with runs a machine of the shape for the time of use.
func with(ctx context.Context, p Place, shape vm.Spec, o vm.Options, use func(context.Context, *machine) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, Bound)
	defer cancel()
	m, remove, err := prepare(p, &shape)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	// QEMU dies with the thread that began it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	line := vm.Cmdline(shape, m.layout, p.Host, o)
	qemu := exec.CommandContext(ctx, line[0], line[1:]...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(m.said)
	if err != nil {
		return err
	}
	defer said.Close()
	qemu.Stderr = said
	if err := qemu.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = qemu.Wait() }()
	defer func() { _ = qemu.Process.Kill(); <-ended }()
	if m.monitor, err = dial(ctx, m.layout.AgentQMP(), ended); err != nil {
		return fmt.Errorf("%w%s", err, m.words())
	}
	defer m.monitor.Close()
	return use(ctx, m)
}

// Sweep removes what trials of a killed agent left.
func Sweep(p Place) error {
	dirs, err := filepath.Glob(filepath.Join(p.Runtime, "t-*"))
	files, failed := filepath.Glob(filepath.Join(p.RAMDir, "trial-*"))
	err = errors.Join(err, failed)
	for _, path := range append(dirs, files...) {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// prepare makes the files of a trial, and gives the shape an identity of its own.
func prepare(p Place, shape *vm.Spec) (m *machine, remove func() error, err error) {
	dir, err := os.MkdirTemp(p.Runtime, "t-")
	if err != nil {
		return nil, nil, err
	}
	shape.UUID = newID()
	ram := filepath.Join(p.RAMDir, "trial-"+shape.UUID)
	remove = func() error {
		err := os.Remove(ram)
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return errors.Join(os.RemoveAll(dir), err)
	}
	m = &machine{layout: vm.Layout{State: dir, Runtime: dir, RAMFile: ram}, said: filepath.Join(dir, "said")}
	err = errors.Join(os.MkdirAll(p.RAMDir, 0o700), os.MkdirAll(m.layout.Disks(), 0o700), sparse(ram, int64(shape.Memory)))
	for _, d := range shape.Disks {
		err = errors.Join(err, sparse(m.layout.Disk(d, false).Path, diskSize))
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return m, remove, nil
}

// sparse makes a file that takes no room: nothing of a trial is ever executed.
func sparse(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

func dial(ctx context.Context, socket string, ended <-chan struct{}) (*qmp.Client, error) {
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		client, err := qmp.Dial(ctx, socket, slog.New(slog.DiscardHandler))
		if err == nil {
			return client, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%w: QEMU does not start", ErrRefused)
		case <-ctx.Done():
			return nil, fmt.Errorf("its monitor does not answer: %w", err)
		case <-retry.C:
		}
	}
}

// words are QEMU's last ones, to be added to an error.
func (m *machine) words() string {
	file, err := os.Open(m.said)
	if err != nil {
		return ""
	}
	defer file.Close()
	data, _ := io.ReadAll(io.LimitReader(file, 2000))
	text := strings.TrimSpace(string(data))
	if text == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(text, "\n", "; ")
}
