package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// link sets the host's cable up or down.
func (h *Host) link(ctx context.Context, state string) error {
	return runScript(ctx, []string{"ip -n " + h.lab.switchNS() + " link set p" + h.Name + " " + state})
}

// Unplug takes the host's cable down; Plug puts it back.
func (h *Host) Unplug(ctx context.Context) error { return h.link(ctx, "down") }

// Plug is the inverse of Unplug.
func (h *Host) Plug(ctx context.Context) error { return h.link(ctx, "up") }

// drop throws away what comes from another host.
func (h *Host) drop(ctx context.Context, from *Host) error {
	h.working.RLock()
	defer h.working.RUnlock()
	return h.inside(ctx, "nft", "add table inet lab; add chain inet lab in { type filter hook input priority 0; }; add rule inet lab in ip saddr "+from.Addr+" drop")
}

// Drop throws away what comes in from another host, one way; Heal lets it
// through.
func (h *Host) Drop(ctx context.Context, from *Host) error { return h.drop(ctx, from) }

// Slow bounds what goes to and from the host to so many bits in a second.
func (h *Host) Slow(ctx context.Context, bits int) error {
	h.working.RLock()
	defer h.working.RUnlock()
	shape := fmt.Sprintf(" root tbf rate %dbit burst 32kb latency 500ms", bits)
	return runScript(ctx, []string{
		"tc -n " + h.lab.switchNS() + " qdisc replace dev p" + h.Name + shape,
		"tc -n " + h.ns + " qdisc replace dev eth0" + shape,
	})
}

// Fast ends Slow.
func (h *Host) Fast(ctx context.Context) error {
	h.working.RLock()
	defer h.working.RUnlock()
	for ns, dev := range map[string]string{h.lab.switchNS(): "p" + h.Name, h.ns: "eth0"} {
		out, err := exec.CommandContext(ctx, "tc", "-n", ns, "qdisc", "show", "dev", dev).Output()
		if err != nil {
			return fmt.Errorf("look at %s of host %s: %w", dev, h.Name, err)
		}
		if !strings.Contains(string(out), "tbf") {
			continue
		}
		if err := runScript(ctx, []string{"tc -n " + ns + " qdisc del dev " + dev + " root"}); err != nil {
			return err
		}
	}
	return nil
}

// StateDir is what the host keeps over a power cut.
func (h *Host) StateDir() string {
	if h.Name == "w" {
		return h.dir
	}
	return filepath.Join(h.dir, "s")
}

// Process is one process of a host.
type Process struct {
	PID  int
	Args []string
}

// Is says whether the process is an agent, witness or guard (by its first
// words), or QEMU.
func (p Process) Is(what string) bool {
	if what == "qemu" {
		return strings.Contains(filepath.Base(p.Args[0]), "qemu-system")
	}
	return len(p.Args) > 1 && p.Args[1] == what
}

// Stopped says whether every thread of a process is stopped.
func Stopped(pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		return false
	}
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		text := string(data)
		if err != nil || !strings.HasPrefix(text[strings.LastIndexByte(text, ')')+1:], " T") {
			return false
		}
	}
	return true
}

// Processes are all that run on the host.
func (h *Host) Processes(context.Context) (list []Process, err error) {
	pids, err := h.pids(nil)
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && len(line) > 0 { // neither gone nor a zombie
			list = append(list, Process{PID: pid, Args: strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")})
		}
	}
	return list, err
}

// pids are all processes in the host's namespace, without those among strangers,
// to which it adds those it finds not to be. The recorder asks so often that a
// process for each answer would take more of the machine than the guest.
func (h *Host) pids(strangers map[int]bool) ([]int, error) {
	var own, other unix.Stat_t
	if err := unix.Stat(filepath.Join("/run/netns", h.ns), &own); err != nil {
		return nil, fmt.Errorf("network of host %s: %w", h.Name, err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("processes of host %s: %w", h.Name, err)
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || strangers[pid] || unix.Stat("/proc/"+name+"/ns/net", &other) != nil {
			continue
		}
		if other.Ino == own.Ino && other.Dev == own.Dev {
			pids = append(pids, pid)
		} else if strangers != nil {
			strangers[pid] = true
		}
	}
	return pids, nil
}

// Taps are the host's tap devices.
func (h *Host) Taps(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", h.ns, "-br", "link", "show", "type", "tun").Output()
	if err != nil {
		return nil, fmt.Errorf("tap devices of host %s: %w", h.Name, err)
	}
	var taps []string
	for line := range strings.Lines(string(out)) {
		taps = append(taps, strings.Fields(line)[0])
	}
	return taps, nil
}

// Hosts are a, b and w.
func (l *Lab) Hosts() []*Host { return l.hosts() }

// RAMDir is the host's memory for guests.
func (h *Host) RAMDir() string { return h.ram }

// Off says whether no agent, or witness, of the lab's runs on the host.
func (h *Host) Off() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}
