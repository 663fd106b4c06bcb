package node

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/accel"
	"vmctl/vm/guard/unit"
)

// findHost looks up what this host has for guests, and how guards are started.
func (n *Node) findHost(ctx context.Context) (err error) {
	wanted := n.config.Accel
	if wanted != "" && wanted != vm.AccelAuto && wanted != vm.AccelKVM && wanted != vm.AccelTCG {
		return api.Errorf(api.Usage, "--accel %q: it is auto, kvm or tcg", wanted)
	}
	if n.host, err = vm.FindHost(wanted); err != nil {
		return fmt.Errorf("this host cannot run guests yet: %w", err)
	}
	n.memory = n.host.Memory
	if err := n.findReserve(); err != nil {
		return err
	}
	if n.config.GuestMemory != "" {
		size, err := vm.ParseSize(n.config.GuestMemory)
		if err != nil || size <= 0 || size > n.host.Memory {
			return api.Errorf(api.Usage, "--guest-memory %q: use a size such as 6G, at most this host's %v", n.config.GuestMemory, n.host.Memory/vm.MiB*vm.MiB)
		}
		n.host.Memory = size
	}
	if wanted == "" || wanted == vm.AccelAuto {
		path := filepath.Join(n.config.StateDir, "accel.json")
		found, err := accel.ProveOnce(ctx, path, n.host.QEMU, n.host.Firmware, n.log)
		if err != nil {
			return fmt.Errorf("find out whether KVM works here: %w", err)
		}
		n.host.Accel, n.accelReason = found.Accel, found.Reason
	}
	n.qemu = qemuVersion(n.host.QEMU)
	n.launcher = unit.DetectLauncher(ctx)
	return nil
}

var versionWord = regexp.MustCompile(`version (\d[\w.]*)`)

// qemuVersion is QEMU's version for people, "unknown" if it does not say.
func qemuVersion(program string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if found := versionWord.FindSubmatch(out); err == nil && found != nil {
		return string(found[1])
	}
	return "unknown"
}
