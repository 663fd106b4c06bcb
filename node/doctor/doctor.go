package doctor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	pages "vmctl/snapshot/memory"
	"vmctl/vm"
	"vmctl/vm/accel"
	"vmctl/vm/guard/watchdog"
)

// Grade says how bad a finding is.
type Grade string

// Grades. Only Bad stands in the way.
const (
	Good Grade = "ok"
	Weak Grade = "weak"
	Bad  Grade = "BAD"
)

// Finding is one thing looked at.
type Finding struct {
	Grade   Grade  `json:"grade"`
	Subject string `json:"subject"`
	Found   string `json:"found"`
	Advice  string `json:"advice,omitempty"`
}

// Examine looks at everything.
func Examine(ctx context.Context) []Finding {
	return []Finding{qemu(), kvm(ctx), memory(), shm(), swap(), tun(), softDirty(), watchdogOf("/dev/watchdog"), clock()}
}

func qemu() Finding {
	host, err := vm.FindHost(vm.AccelTCG)
	if err != nil {
		return Finding{Bad, "QEMU", strings.ReplaceAll(err.Error(), "\n", "; "), "apt install qemu-system-x86 qemu-utils seabios, or dnf install qemu-kvm qemu-img seabios-bin"}
	}
	return Finding{Good, "QEMU", host.QEMU + ", " + host.Firmware, ""}
}

func kvm(ctx context.Context) Finding {
	host, err := vm.FindHost(vm.AccelTCG)
	if err != nil {
		return Finding{Weak, "KVM", "not tried: QEMU is not complete", "see QEMU, above"}
	}
	found, err := accel.Prove(ctx, host.QEMU, host.Firmware, slog.New(slog.DiscardHandler))
	switch {
	case err != nil:
		return Finding{Weak, "KVM", "not tried: " + strings.ReplaceAll(err.Error(), "\n", "; "), "look at the reason and run `vmctl doctor` again"}
	case found.Accel != accel.KVM:
		return Finding{Weak, "KVM", found.Reason, "guests run slowly, by emulation; switch virtualization on in the firmware, load kvm_intel or kvm_amd, or use hardware of its own"}
	}
	return Finding{Good, "KVM", found.Reason, ""}
}

func memory() Finding {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Finding{Weak, "memory", err.Error(), "the kernel does not tell; use a newer one"}
	}
	return Finding{Good, "memory", fmt.Sprintf("%d MiB, %d CPUs", uint64(info.Totalram)*uint64(info.Unit)>>20, runtime.NumCPU()), ""}
}

func shm() Finding {
	var stat unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &stat); err != nil || stat.Type != unix.TMPFS_MAGIC {
		return Finding{Bad, "/dev/shm", "is not a tmpfs", "guests' memory lives there; mount one, or give the agent another with --ram-dir"}
	}
	return Finding{Good, "/dev/shm", fmt.Sprintf("%d MiB for guests' memory and replicas", stat.Blocks*uint64(stat.Bsize)>>20), ""}
}

func swap() Finding {
	data, err := os.ReadFile("/proc/swaps")
	if err == nil && strings.Count(string(data), "\n") > 1 {
		return Finding{Weak, "swap", "is on", "guests' memory may be swapped out, which lengthens pauses; swapoff -a, or give the host more memory"}
	}
	return Finding{Good, "swap", "is off", ""}
}

func tun() Finding {
	file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return Finding{Weak, "tap devices", err.Error(), "modprobe tun; without it only user networks work"}
	}
	file.Close()
	return Finding{Good, "tap devices", "/dev/net/tun opens", ""}
}

func softDirty() Finding {
	if err := pages.SelfTest(); err != nil {
		return Finding{Weak, "dirty pages", err.Error(), "checkpoints compare all memory, which lengthens pauses; distributions' kernels track what is written"}
	}
	return Finding{Good, "dirty pages", "the kernel tracks what is written", ""}
}

// watchdogOf says what a device is good for. It is not opened: that would arm it.
func watchdogOf(device string) Finding {
	if _, err := os.Stat(device); err != nil {
		return Finding{Weak, "watchdog", "there is none", "a kernel that hangs, or guard and agent that are stopped together, are not covered; " +
			"load the board's driver, ipmi_watchdog or softdog by a file in /etc/modules-load.d, and give `watchdog: " + device + "` in /etc/vmctl/vmctl.yaml"}
	}
	sight := watchdog.Look(device)
	found := device + ", " + cmp.Or(sight.Identity, "of an unknown driver")
	if sight.Identity == "Software Watchdog" {
		found += " (softdog: it covers no kernel that hangs with interrupts off)"
	}
	switch {
	case sight.NoWayOut:
		return Finding{Weak, "watchdog", found + ", cannot be disarmed", "once a guest with a lease ran here, this host is reset unless it is fed until it is shut down; load the driver with nowayout=0"}
	case sight.Active:
		return Finding{Good, "watchdog", found + ", armed", "if it is not vmctl that feeds it, such as systemd (RuntimeWatchdogSec=), vmctl cannot have it"}
	}
	return Finding{Good, "watchdog", found, "to reset this host when nothing else can stop a guest: `watchdog: " + device + "` in /etc/vmctl/vmctl.yaml"}
}

func clock() Finding {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return Finding{Bad, "clock", "CLOCK_BOOTTIME: " + err.Error(), "leases need it; use a newer kernel"}
	}
	return Finding{Good, "clock", "CLOCK_BOOTTIME works", ""}
}
