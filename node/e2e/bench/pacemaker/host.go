package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/node/e2e/lab"
)

// boot starts a container in the host's network namespace. Its own control
// groups keep its systemd from the machine's. The overlay is mounted where only
// the container sees it, so that it goes with it.
const boot = `for d in $4; do mkdir -p "$d" && echo $$ >"$d/cgroup.procs"; done
mkdir -p "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
exec systemd-nspawn -q --register=no --keep-unit -D "$2/root" -M "$5" --boot --network-namespace-path="/run/netns/$5" \
	--capability=all --resolv-conf=off --timezone=off --console=pipe --bind="$3:/shared" --bind=/dev/net/tun`

// PowerOn boots a host.
func (p *Pair) PowerOn(ctx context.Context, h *lab.Host) error {
	return p.power.set(h.Name, true, func() error {
		ns := h.Namespace()
		cmd := exec.Command("nsenter", "--net=/run/netns/"+ns, "unshare", "--mount", "--propagation", "slave",
			"sh", "-ec", boot, "sh", p.tree, h.StateDir(), p.shared, strings.Join(cgroups(ns), " "), ns)
		// Plain cgroup v2 as on a host of today, whatever this machine has.
		cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_LOCK=0")
		return errors.Join(h.Plug(ctx), h.LaunchInstead(cmd))
	})
}

// cgroups are the host's own, one in each hierarchy that systemd uses.
func cgroups(name string) (list []string) {
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(top + "/cgroup.procs"); err == nil {
			list = append(list, filepath.Join(top, name))
		}
	}
	return list
}

// PowerCut takes the power away.
func (p *Pair) PowerCut(ctx context.Context, h *lab.Host) error {
	return p.power.set(h.Name, false, func() error { return h.PowerCut(ctx) })
}

// Offs are the orders of fence agents after a time.
func (p *Pair) Offs(after time.Time) []Off { return p.power.orders(after) }

// SetTiming changes corosync's timing while one host is off: the other takes it
// over at once, the one that is off when it boots.
func (p *Pair) SetTiming(ctx context.Context, on *lab.Host, timing Timing) error {
	if err := p.writeConfig(timing); err != nil {
		return err
	}
	if out, err := p.run(ctx, on, "corosync-cfgtool", "-R"); err != nil {
		return fmt.Errorf("have corosync read its configuration: %w: %s", err, out)
	}
	return nil
}

// run runs a command inside a host.
func (p *Pair) run(ctx context.Context, h *lab.Host, args ...string) (string, error) {
	pid, err := leader(ctx, h)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-a"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// leader is the host's first process.
func leader(ctx context.Context, h *lab.Host) (int, error) {
	list, err := h.Processes(ctx)
	if err != nil {
		return 0, err
	}
	for _, process := range list {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.PID))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if words := strings.Fields(line); len(words) == 3 && words[0] == "NSpid:" && words[2] == "1" {
				return process.PID, nil
			}
		}
	}
	return 0, fmt.Errorf("host %s is off", h.Name)
}

// Started is when the guest's QEMU on a host was started.
func (p *Pair) Started(ctx context.Context, h *lab.Host) (time.Time, error) {
	pid := h.QEMU(ctx, UUID)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, fmt.Errorf("the guest's QEMU on %s: %w", h.Name, err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const startTime, hertz = 19, 100
	ticks, err := strconv.ParseInt(fields[startTime], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(ticks)*time.Second/hertz - time.Duration(now.Nano())), nil
}

// Journal is the end of a host's log.
func (p *Pair) Journal(ctx context.Context, h *lab.Host, lines int) string {
	out, _ := p.run(ctx, h, "journalctl", "--no-pager", "-n", strconv.Itoa(lines))
	return out
}
