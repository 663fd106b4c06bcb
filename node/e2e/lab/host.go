package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"vmctl/node/api"
)

// Host is one machine of the lab: a network namespace, its processes and files.
type Host struct {
	lab  *Lab
	Name string
	Addr string
	ns   string
	dir  string
	ram  string

	ramSize int64 // of a file system of its own, if it has one

	config string // file for the agent's next start; empty: none
	agent  *exec.Cmd
	gone   chan struct{} // closed when agent was waited for

	// Held while the lab itself is at work in the namespace: a power cut is to end the
	// host's processes, and not the lab's.
	working sync.RWMutex
}

// Dir is where the host's files are; Log its agent's log.
func (h *Host) Dir() string { return h.dir }

// LogFile is what the agent wrote to standard error.
func (h *Host) LogFile() string { return h.dir + ".log" }

// Socket is the agent's.
func (h *Host) Socket() string { return filepath.Join(h.dir, "r", "vmctl.sock") }

// API is a client of the host's agent.
func (h *Host) API() *api.Client { return api.NewClient(h.Socket()) }

// PowerOn brings the link up and starts the agent, or the witness on w, and
// waits until it serves.
func (h *Host) PowerOn(ctx context.Context) error {
	return errors.Join(h.link(ctx, "up"), h.StartAgent(ctx))
}

// StartAgent starts the agent, or the witness on w, and waits until it serves.
func (h *Host) StartAgent(ctx context.Context) error {
	if err := h.Launch(); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, h.serves)
}

// Launch starts the agent, or the witness on w, and does not wait for it.
func (h *Host) Launch() error {
	args := []string{"netns", "exec", h.ns, h.lab.Binary}
	if h.Name == "w" {
		args = append(args, "witness", "run", "--name", "w", "--state-dir", h.dir, "--listen", fmt.Sprintf("%s:%d", h.Addr, witnessPort))
	} else {
		args = append(args, "node", "run", "--name", h.Name, "--state-dir", filepath.Join(h.dir, "s"),
			"--runtime-dir", filepath.Join(h.dir, "r"), "--ram-dir", h.ram, "--listen", h.Addr+":7440", "--accel", "tcg")
		if h.config != "" {
			args = append(args, "--config", h.config)
		}
	}
	agent := exec.Command("ip", args...)
	if err := h.installQEMU(); err != nil {
		return err
	}
	path := h.bin() + ":" + filepath.Dir(h.OwnQEMU()) + ":" + os.Getenv("PATH")
	agent.Env = append(os.Environ(), "PATH="+path)
	return h.LaunchInstead(agent)
}

// LaunchInstead starts something else than our agent. It must enter the host's
// network namespace by itself, or it does not lose power with the host.
func (h *Host) LaunchInstead(agent *exec.Cmd) error {
	log, err := os.OpenFile(h.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	agent.Stdout, agent.Stderr = log, log
	agent.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := agent.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	h.agent, h.gone = agent, gone
	go func() { _ = agent.Wait(); close(gone) }()
	return nil
}

// bin is where the host has programs of its own.
func (h *Host) bin() string { return h.dir + "-bin" }

// Install gives the host a shell script under the name of a program, as an
// upgrade does: whoever runs the old one keeps it.
func (h *Host) Install(name, script string) error {
	path := filepath.Join(h.bin(), name)
	if err := os.MkdirAll(h.bin(), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte("#!/bin/bash\n"+script), 0o755); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Configure gives the agent a config file, from its next start on.
func (h *Host) Configure(text string) error {
	h.config = h.dir + ".yaml"
	return os.WriteFile(h.config, []byte(text), 0o600)
}

// ConfigureMore adds to that.
func (h *Host) ConfigureMore(text string) error {
	before, err := os.ReadFile(h.config)
	if err != nil {
		return err
	}
	return h.Configure(string(before) + text)
}

// Namespace is the host's network namespace; it outlives a power cut.
func (h *Host) Namespace() string { return h.ns }

// Gone is closed when the agent that was started last has ended.
func (h *Host) Gone() <-chan struct{} { return h.gone }

func (h *Host) serves() error {
	if h.Name == "w" {
		_, err := os.Stat(filepath.Join(h.dir, "token"))
		return errors.Join(err, listens(h.agent.Process.Pid, witnessPort))
	}
	_, err := h.API().Status(context.Background())
	return err
}

// Agent is the agent's process.
func (h *Host) Agent() *os.Process { return h.agent.Process }

// KillAgent ends the agent by SIGKILL and waits until it is gone. Guests run on.
func (h *Host) KillAgent() error {
	err := h.agent.Process.Kill()
	<-h.gone
	return err
}

// Signal sends a signal to the agent.
func (h *Host) Signal(s syscall.Signal) error { return h.agent.Process.Signal(s) }

// PowerCut kills every process of the host and takes its link down, at once.
// What was on tmpfs is gone, as after a reboot.
func (h *Host) PowerCut(ctx context.Context) error {
	if err := h.kill(ctx); err != nil {
		return err
	}
	<-h.gone
	return errors.Join(h.dropTaps(ctx), h.loseRAM(), os.RemoveAll(filepath.Join(h.dir, "r")))
}

// kill ends all processes of the host, and takes its cable down with the first.
func (h *Host) kill(ctx context.Context) (failed error) {
	h.working.Lock()
	defer h.working.Unlock()
	for round := 0; round < 20; round++ {
		pids, err := h.pids(nil)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if round == 0 {
			failed = h.link(ctx, "down")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return failed
}

// dropTaps removes what tap devices there are: none outlives a power cut. Those
// of a QEMU that has just ended may go by themselves meanwhile.
func (h *Host) dropTaps(ctx context.Context) error {
	return Eventually(ctx, 2*time.Second, func() error {
		taps, err := h.Taps(ctx)
		for _, tap := range taps {
			err = errors.Join(err, h.inside(ctx, "ip", "link", "del", tap))
		}
		return err
	})
}

// QEMU is the pid of the QEMU that has the guest here, 0 if there is none or it
// only waits to take it.
func (h *Host) QEMU(ctx context.Context, uuid string) int {
	if h.Waits(ctx, uuid) {
		return 0
	}
	return h.Process(ctx, uuid)
}

// Process is the pid of any QEMU of the guest here.
func (h *Host) Process(_ context.Context, uuid string) int {
	pids, err := h.pids(nil)
	if err != nil {
		return 0
	}
	return h.qemuAmong(pids, uuid)
}

func (h *Host) qemuAmong(pids []int, uuid string) int {
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.Contains(line, []byte("qemu-system")) && bytes.Contains(line, []byte(uuid)) && !bytes.Contains(line, []byte("guard\x00")) {
			return pid
		}
	}
	return 0
}

// CLI runs vmctl against the host's agent and returns standard output.
func (h *Host) CLI(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.lab.Binary, append([]string{"--socket", h.Socket()}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("on %s: vmctl %s: %w: %s", h.Name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// Vmctl runs the binary in the host's network, as a second agent would be.
func (h *Host) Vmctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return h.inside(ctx, append([]string{h.lab.Binary}, args...)...)
}

// inside runs a command in the host's namespace.
func (h *Host) inside(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.ns}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("on %s: %s: %w: %s", h.Name, strings.Join(args, " "), err, out)
	}
	return nil
}
