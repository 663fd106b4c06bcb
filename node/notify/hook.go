package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	mostOutput = 4096 // bytes of a program's output that are logged
	grace      = time.Second
)

// hook runs a program for each delivery.
type hook struct {
	path    string
	timeout time.Duration
	log     *slog.Logger
}

func newHook(t Target, log *slog.Logger) (*hook, error) {
	info, err := os.Stat(t.Exec)
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("%s is no program; run: chmod +x %s", t.Exec, t.Exec)
	}
	return &hook{path: t.Exec, timeout: t.timeout(), log: log}, nil
}

func (h *hook) name() string { return "exec " + h.path }

// send runs the program. It fails only when the program could not be started:
// one that ran has been told, and may have done half of its work.
func (h *hook) send(ctx context.Context, d Delivery) error {
	err := h.test(ctx, d)
	if errors.Is(err, errProgram) {
		return nil
	}
	return err
}

// errProgram: the program ran and failed.
var errProgram = errors.New("the program failed")

// test runs the program and says how it ended, too.
func (h *hook) test(ctx context.Context, d Delivery) error {
	body, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	bounded, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	cmd := exec.CommandContext(bounded, h.path)
	output := &output{}
	cmd.Dir, cmd.Env = "/", environment(d)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(body, '\n')), output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace // a child that left the group may hold the output
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	began := time.Now()
	err = cmd.Wait()
	log := h.log.With("program", h.path, "event", d.Kind, "took", time.Since(began).Round(time.Millisecond), "output", output.String())
	switch {
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case bounded.Err() != nil && err != nil:
		log.Warn("a notification program did not end in time and was killed", "timeout", h.timeout)
		return fmt.Errorf("%w: it did not end within %v and was killed", errProgram, h.timeout)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		log.Warn("a notification program failed", "error", err)
		return fmt.Errorf("%w: %w: %s", errProgram, err, output)
	default:
		log.Debug("a notification program ran")
	}
	return nil
}

// environment is all that a program gets: the agent's own has no business there.
func environment(d Delivery) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/",
		"VMCTL_ID=" + d.ID, "VMCTL_KIND=" + d.Kind, "VMCTL_SEVERITY=" + d.Severity, "VMCTL_VM=" + d.VM, "VMCTL_NODE=" + d.Node,
		"VMCTL_MESSAGE=" + d.Message, "VMCTL_TIME=" + d.Time, "VMCTL_STATE=" + string(d.State),
		"VMCTL_REPEATED=" + strconv.Itoa(d.Repeated), "VMCTL_DROPPED=" + strconv.Itoa(d.Dropped),
	}
}

// output keeps the beginning of what a program writes. The buffer is not
// embedded: its ReadFrom would let everything in.
type output struct{ kept bytes.Buffer }

func (o *output) Write(b []byte) (int, error) {
	o.kept.Write(b[:min(len(b), mostOutput-o.kept.Len())])
	return len(b), nil
}

func (o *output) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(o.kept.String(), "?"))
}
