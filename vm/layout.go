package vm

import (
	"fmt"
	"path/filepath"
)

// Layout is where a guest's files are on this host.
//
//	State    <state-dir>/guests/<uuid>      survives a reboot of the host
//	Runtime  <runtime-dir>/g/<8 of uuid>    sockets; short, for a socket's path is
//	RAMFile  <ram-dir>/<uuid>.ram           on tmpfs
type Layout struct {
	State   string
	Runtime string
	RAMFile string
}

// maxSocket is the longest path of a unix socket, with its closing zero.
const maxSocket = 104

// NewLayout places the guest with this UUID.
func NewLayout(stateDir, runtimeDir, ramDir, uuid string) Layout {
	return Layout{
		State:   filepath.Join(stateDir, "guests", uuid),
		Runtime: filepath.Join(runtimeDir, "g", uuid[:min(8, len(uuid))]),
		RAMFile: filepath.Join(ramDir, uuid+".ram"),
	}
}

// Check refuses directories too deep for unix sockets.
func (l Layout) Check() error {
	for _, path := range []string{l.AgentQMP(), l.GuardQMP(), l.Serial(), l.GuestAgent(), l.Guard(), l.VNC()} {
		if len(path) >= maxSocket {
			return fmt.Errorf("socket path %s has %d characters, a unix socket takes %d: use a shorter runtime directory",
				path, len(path), maxSocket-1)
		}
	}
	return nil
}

// RAM is the guest's memory as a file.
func (l Layout) RAM() string { return l.RAMFile }

// AgentQMP is the QMP socket of the agent. QEMU serves one client per socket.
func (l Layout) AgentQMP() string { return filepath.Join(l.Runtime, "qmp.sock") }

// GuardQMP is the QMP socket of the guard.
func (l Layout) GuardQMP() string { return filepath.Join(l.Runtime, "gqmp.sock") }

// Serial is the socket of the guest's serial console.
func (l Layout) Serial() string { return filepath.Join(l.Runtime, "serial.sock") }

// GuestAgent is the socket that leads to the agent inside the guest.
func (l Layout) GuestAgent() string { return filepath.Join(l.Runtime, "qga.sock") }

// VNC is the socket of the guest's screen, if it has one.
func (l Layout) VNC() string { return filepath.Join(l.Runtime, "vnc.sock") }

// Guard is the socket of the guard.
func (l Layout) Guard() string { return filepath.Join(l.Runtime, "guard.sock") }

// GuardConfig is what the guard is told at launch.
func (l Layout) GuardConfig() string { return filepath.Join(l.Runtime, "guard.json") }

// Exit is where the guard records how QEMU ended.
func (l Layout) Exit() string { return filepath.Join(l.State, "exit.json") }

// SerialLog has everything the guest wrote to its serial console.
func (l Layout) SerialLog() string { return filepath.Join(l.State, "serial.log") }

// QEMULog has what QEMU wrote to standard error.
func (l Layout) QEMULog() string { return filepath.Join(l.State, "qemu.log") }

// Boot is the directory of the copies of kernel and initrd.
func (l Layout) Boot() string { return filepath.Join(l.State, "boot") }

// Kernel is the guest's own copy of its kernel.
func (l Layout) Kernel() string { return filepath.Join(l.Boot(), "kernel") }

// Initrd is the guest's own copy of its initrd.
func (l Layout) Initrd() string { return filepath.Join(l.Boot(), "initrd") }

// Disks is the directory of the disks made for the guest.
func (l Layout) Disks() string { return filepath.Join(l.State, "disks") }

// DiskFile is one disk as a file of this host.
type DiskFile struct {
	Path   string
	Format string
}

// Disk is where d is on this host. A replica is always raw and always in the
// guest's own directory, whatever the disk was on the node it came from.
func (l Layout) Disk(d Disk, replica bool) DiskFile {
	if replica {
		return DiskFile{filepath.Join(l.Disks(), d.Name+"."+FormatRaw), FormatRaw}
	}
	if d.Path != "" {
		return DiskFile{d.Path, d.Format}
	}
	return DiskFile{filepath.Join(l.Disks(), d.Name+"."+d.Format), d.Format}
}
