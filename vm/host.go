package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is what this host offers to guests.
type Host struct {
	// Accel is the accelerator proved to work here: kvm or tcg. Empty is tcg.
	Accel string
	// CPUs and Memory bound what one guest may ask for; zero is unknown.
	CPUs   int
	Memory Size
	// Machines are the machine types this QEMU knows; empty is unknown.
	Machines []string

	QEMU     string // path of qemu-system-x86_64
	QEMUImg  string // path of qemu-img
	Firmware string // path of SeaBIOS, 256 KiB
}

func (h Host) accel() string { return either(h.Accel, AccelTCG) }

var firmwares = []string{
	"/usr/share/seabios/bios-256k.bin",
	"/usr/share/qemu/bios-256k.bin",
	"/usr/share/qemu-kvm/bios-256k.bin",
}

// FindHost looks up this host's QEMU, firmware, CPUs and memory. It does not
// decide the accelerator: accel is what the caller found to work. The error
// names everything that is missing; the Host is filled as far as possible.
func FindHost(accel string) (Host, error) {
	h := Host{Accel: accel, CPUs: runtime.NumCPU()}
	var missing []error
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		missing = append(missing, fmt.Errorf("read the host's memory: %w", err))
	} else {
		h.Memory = Size(info.Totalram) * Size(info.Unit)
	}
	for _, program := range []struct {
		names []string
		path  *string
		hint  string
	}{
		{[]string{"qemu-system-x86_64", "/usr/libexec/qemu-kvm"}, &h.QEMU, "qemu-system-x86"},
		{[]string{"qemu-img"}, &h.QEMUImg, "qemu-utils"},
	} {
		for _, name := range program.names {
			if path, err := exec.LookPath(name); err == nil {
				*program.path = path
				break
			}
		}
		if *program.path == "" {
			missing = append(missing, fmt.Errorf("%s not found: install package %s", program.names[0], program.hint))
		}
	}
	for _, path := range firmwares {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			h.Firmware = path
			break
		}
	}
	if h.Firmware == "" {
		missing = append(missing, errors.New("firmware bios-256k.bin not found: install package seabios"))
	}
	return h, errors.Join(missing...)
}
