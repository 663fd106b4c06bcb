package node

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"time"

	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/guard"
)

// findHost looks up what this host has for guests, and how guards are started.
func (n *Node) findHost() (err error) {
	accel := n.config.Accel
	switch accel {
	case vm.AccelKVM, vm.AccelTCG:
	case "", vm.AccelAuto:
		accel = vm.AccelTCG
	default:
		return api.Errorf(api.Usage, "--accel %q: it is auto, kvm or tcg", accel)
	}
	if n.host, err = vm.FindHost(accel); err != nil {
		return fmt.Errorf("this host cannot run guests yet: %w", err)
	}
	n.qemu = qemuVersion(n.host.QEMU)
	n.launcher = &guard.Session{}
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
