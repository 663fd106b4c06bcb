package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"vmctl/node/api"
	"vmctl/packaging/testguest"
)

// GuestFiles are what the test guest is made of.
type GuestFiles struct {
	Kernel, Initrd, AgentInitrd, Disk string
}

// GuestName is the one guest most scenarios have.
const GuestName = "shop"

// How many steps of work the guest does in a second: in the tests, where each costs
// more than it shows, and where times are measured.
const (
	Rate      = 10
	BenchRate = 20
)

// KernelLine is what the test guest's kernel is told: its address, where its
// records go, how much it works. A step is the same work in tests and benches.
func KernelLine() string { return kernelLine(Rate) + " guest.memory=8M" }

// BenchLine is KernelLine where times are measured.
func BenchLine() string { return kernelLine(BenchRate) }

func kernelLine(rate int) string {
	return fmt.Sprintf("%s panic=-1 guest.ip=%s%s guest.record=%s:%d guest.rate=%d guest.dirty=%dK",
		testguest.KernelWords, GuestAddr, network, SwitchAddr, recordPort, rate, rate*50)
}

// CreateGuest makes and starts the test guest on a host. More flags are those
// of `vmctl vm create`. It has little more memory than it boots with: every page
// costs both hosts.
func (h *Host) CreateGuest(ctx context.Context, files GuestFiles, flags ...string) (v api.VM, err error) {
	return h.create(ctx, GuestName, "96M", files, KernelLine(), append(flags, "--nic", "bridge=br0")...)
}

// CreateBenchGuest is CreateGuest where times are measured.
func (h *Host) CreateBenchGuest(ctx context.Context, files GuestFiles, flags ...string) (v api.VM, err error) {
	return h.create(ctx, GuestName, benchMemory, files, BenchLine(), append(flags, "--nic", "bridge=br0")...)
}

const benchMemory = "128M"

// CreateBeside makes and starts another guest on a host: it works, but has no
// network, for the test guest's address is taken.
func (h *Host) CreateBeside(ctx context.Context, name string, files GuestFiles, flags ...string) (v api.VM, err error) {
	return h.create(ctx, name, benchMemory, files, fmt.Sprintf("%s panic=-1 guest.rate=%d", testguest.KernelWords, BenchRate), flags...)
}

func (h *Host) create(ctx context.Context, name, memory string, files GuestFiles, line string, flags ...string) (v api.VM, err error) {
	args := append([]string{"--output", "json", "vm", "create", name, "--disk", "image=" + files.Disk, "--start"}, flags...)
	for _, usual := range [][]string{{"--memory", memory}, {"--kernel", files.Kernel}, {"--initrd", files.Initrd}, {"--append", line}} {
		if !slices.Contains(flags, usual[0]) { // a flag is given once
			args = append(args, usual...)
		}
	}
	out, err := h.CLI(ctx, args...)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal([]byte(out), &v)
}

// CreateQuiet makes and starts another guest on a host that has no network and does
// next to nothing: one small step of work a second.
func (h *Host) CreateQuiet(ctx context.Context, name string, files GuestFiles, flags ...string) (v api.VM, err error) {
	return h.create(ctx, name, benchMemory, files, testguest.KernelWords+" panic=-1 guest.rate=1 guest.dirty=64K", flags...)
}

// Booted says whether a guest of this host is through with booting.
func (h *Host) Booted(uuid string) error {
	console, err := os.ReadFile(filepath.Join(h.StateDir(), "guests", uuid, "serial.log"))
	if err == nil && !bytes.Contains(console, []byte("workload: token")) {
		err = errors.New("the guest is booting")
	}
	return err
}

// Show is the guest as the host's agent sees it.
func (h *Host) Show(ctx context.Context) (api.VM, error) { return h.API().VM(ctx, GuestName) }

// WaitState waits until test says nil of the guest as the host sees it.
func (h *Host) WaitState(ctx context.Context, bound time.Duration, test func(api.VM) error) (v api.VM, err error) {
	err = Eventually(ctx, bound, func() error {
		var err error
		if v, err = h.Show(ctx); err != nil {
			return err
		}
		return test(v)
	})
	return v, err
}

// Synced says whether the guest's replica is complete, and a checkpoint is on
// the peer where there are checkpoints.
func Synced(v api.VM) error {
	switch {
	case v.State != "running":
		return fmt.Errorf("the guest is %s: %s", v.State, v.Reason)
	case v.Replica == nil || v.Replica.State != "synced":
		return fmt.Errorf("the replica is not synced: %+v", v.Replica)
	case v.Protection.Level == "resume" && v.Checkpoint == nil:
		return errors.New("there is no checkpoint yet")
	}
	return nil
}

// Covered says whether a QEMU waits on the peer to take the guest.
func Covered(v api.VM) error {
	if v.Replica == nil || v.Replica.Standby != api.StandbyReady {
		return fmt.Errorf("no standby waits: %+v", v.Replica)
	}
	return nil
}

// SyncedSince says in addition whether the newest checkpoint is younger than t:
// the replica has the guest as it was then, not as it booted.
func SyncedSince(t time.Time) func(api.VM) error {
	return func(v api.VM) error {
		if err := Synced(v); err != nil || v.Checkpoint == nil || v.Checkpoint.Time.After(t) {
			return err
		}
		return errors.New("there is no checkpoint since")
	}
}

// InState says whether the guest is in a state.
func InState(state string) func(api.VM) error {
	return func(v api.VM) error {
		if v.State != state {
			return fmt.Errorf("the guest is %s, not %s: %s", v.State, state, v.Reason)
		}
		return nil
	}
}

// Console is the end of what the guest wrote to its serial console on this host.
func (h *Host) Console(uuid string) string {
	path := filepath.Join(h.StateDir(), "guests", uuid, "serial.log")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return Tail(path, 20)
}

// Build makes what every lab needs, from the sources at root: vmctl in dir, and
// the test guest in the cache.
func Build(ctx context.Context, root, dir string) (binary string, files GuestFiles, err error) {
	if binary, err = BuildBinary(ctx, root, dir); err != nil {
		return "", files, err
	}
	image, err := testguest.Build(ctx, filepath.Join(root, ".cache", "guest"))
	return binary, GuestFiles{Kernel: image.Kernel, Initrd: image.Initrd, AgentInitrd: image.AgentInitrd, Disk: image.DiskBase}, err
}

// BuildBinary builds vmctl into dir, with the race detector if VMCTL_RACE is
// set: what it finds ends up in the hosts' logs.
func BuildBinary(ctx context.Context, root, dir string) (string, error) {
	binary := filepath.Join(dir, "vmctl")
	args, cgo := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", binary}, "0"
	if os.Getenv("VMCTL_RACE") != "" {
		args, cgo = append(args, "-race"), "1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build vmctl: %w: %s", err, out)
	}
	return binary, nil
}
