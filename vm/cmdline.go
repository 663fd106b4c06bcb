package vm

import (
	"fmt"
	"strconv"
	"strings"

	"vmctl/vm/network"
)

// Options is how a guest comes up this time.
type Options struct {
	// Incoming waits for a state to be loaded (migrate-incoming); the guest
	// stays paused after it until "cont".
	Incoming bool
	// Offline leaves the cards' links down, for a guest that may wait long; see
	// Connect.
	Offline bool
	// Paused starts with the CPUs stopped.
	Paused bool
	// Replica runs from the disks a replica has: raw, in the guest's own
	// directory.
	Replica bool
}

// PCI slots on the root bus. They never change: a state is loaded only into
// the same devices at the same places. 0, 1 and 0x1f are the machine's own.
const (
	slotSerialBus = 0x2
	slotRNG       = 0x3
	slotPanic     = 0x4
	slotVGA       = 0x5
	slotDisk      = 0x8  // to 0x13
	slotNIC       = 0x14 // to 0x1b
)

// Cmdline is the QEMU line of a guest, its program first. It is pure, and for
// one spec differs between hosts only in paths, disk formats and tap names.
//
// RAM is a shared named file, so checkpoints copy it from outside QEMU. The
// firmware is a read-only flash because a saved state holds no ROM: without it
// a guest that was resumed could not reboot.
func Cmdline(s Spec, l Layout, h Host, o Options) []string {
	line := []string{h.QEMU,
		"-name", "guest=" + escape(s.Name) + ",process=" + escape("vm-"+s.Name) + ",debug-threads=on",
		"-uuid", s.UUID,
		"-nodefaults", "-no-user-config",
		"-vga", "none", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", s.Machine + ",memory-backend=ram,suppress-vmdesc=on",
		"-accel", accelArgument(s.Accel),
		"-cpu", s.CPU,
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", s.CPUs, s.CPUs),
		"-m", s.Memory.qemu(),
		"-object", "memory-backend-file,id=ram,share=on,mem-path=" + escape(l.RAM()) + ",size=" + s.Memory.qemu(),
		"-global", "migration.send-configuration=off",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + escape(h.Firmware),
		"-boot", "strict=on",
		"-rtc", "base=utc",
		// A panicked guest stays, so that its end can be looked at; what
		// follows is the restart policy's to say.
		"-action", "panic=pause",
	}
	line = append(line, controls(s, l)...)
	line = append(line, displayArguments(s, l)...)
	for i, d := range s.Disks {
		line = append(line, diskArguments(i, d, l.Disk(d, o.Replica))...)
	}
	for i, n := range s.NICs {
		line = append(line, nicArguments(s, i, n)...)
	}
	if s.Kernel != "" {
		line = append(line, "-kernel", l.Kernel())
		if s.Initrd != "" {
			line = append(line, "-initrd", l.Initrd())
		}
		if s.Append != "" {
			line = append(line, "-append", s.Append)
		}
	}
	if o.Incoming {
		line = append(line, "-incoming", "defer")
	}
	if o.Incoming || o.Paused {
		line = append(line, "-S")
	}
	return line
}

// TapName is the tap of the guest's i-th card: its own for a bridge, the
// user's for a tap, none on a user network.
func (s Spec) TapName(i int) string {
	switch n := s.NICs[i]; n.Type {
	case NICBridge:
		return network.TapName(s.UUID, i)
	case NICTap:
		return n.Tap
	}
	return ""
}

func accelArgument(accel string) string {
	if accel == AccelKVM {
		return "kvm"
	}
	// Translated code is bounded so that ResourceUse is true.
	return "tcg,thread=multi,tb-size=" + strconv.Itoa(int(translations/MiB))
}

// controls are the ways into the guest: two QMP sockets, as QEMU serves one
// client on each; the serial console; the channel of the guest agent; and the
// small devices.
func controls(s Spec, l Layout) []string {
	socket := func(id, path string) string {
		return "socket,id=" + id + ",path=" + escape(path) + ",server=on,wait=off"
	}
	line := []string{
		"-chardev", socket("qmp-agent", l.AgentQMP()), "-mon", "chardev=qmp-agent,mode=control",
		"-chardev", socket("qmp-guard", l.GuardQMP()), "-mon", "chardev=qmp-guard,mode=control",
		"-chardev", socket("serial", l.Serial()) + ",logfile=" + escape(l.SerialLog()) + ",logappend=on",
		"-serial", "chardev:serial",
	}
	if on(s.GuestAgent) {
		line = append(line,
			"-chardev", socket("qga", l.GuestAgent()),
			"-device", device("virtio-serial-pci", "vserial0", slotSerialBus),
			"-device", "virtserialport,id=qga0,bus=vserial0.0,nr=1,chardev=qga,name=org.qemu.guest_agent.0")
	}
	if on(s.RNG) {
		line = append(line,
			"-object", "rng-random,id=rng0,filename=/dev/urandom",
			"-device", device("virtio-rng-pci", "vrng0", slotRNG)+",rng=rng0")
	}
	if on(s.PVPanic) {
		line = append(line, "-device", device("pvpanic-pci", "pvpanic0", slotPanic))
	}
	return line
}

// diskArguments build device -> top -> d -> file. The top node does nothing,
// but the mirror takes it while snapshots take the one below.
func diskArguments(i int, d Disk, file DiskFile) []string {
	// Through the page cache with the guest's flushes honoured: safe on every
	// file system, tmpfs too.
	common := ",cache.direct=off,cache.no-flush=off,discard=unmap"
	zeroes := ",detect-zeroes=unmap"
	if d.Preallocate {
		common, zeroes = ",cache.direct=off,cache.no-flush=off,discard=ignore", ""
	}
	return []string{
		"-blockdev", fmt.Sprintf("driver=file,node-name=f%d,filename=%s,aio=threads%s", i, escape(file.Path), common),
		"-blockdev", fmt.Sprintf("driver=%s,node-name=d%d,file=f%d%s%s", file.Format, i, i, common, zeroes),
		"-blockdev", fmt.Sprintf("driver=raw,node-name=top%d,file=d%d%s", i, i, common),
		// One queue whatever the number of CPUs: the number is part of the state.
		"-device", device("virtio-blk-pci", fmt.Sprintf("vd%d", i), slotDisk+i) +
			fmt.Sprintf(",drive=top%d,num-queues=1,serial=%s,bootindex=%d", i, escape(d.Name), i+1),
	}
}

func nicArguments(s Spec, i int, n NIC) []string {
	var backend strings.Builder
	if n.Type == NICUser {
		fmt.Fprintf(&backend, "user,id=n%d", i)
		for _, text := range n.Forward {
			if f, err := ParseForward(text); err == nil {
				fmt.Fprintf(&backend, ",hostfwd=%s:%v-:%d", f.Protocol, f.Host, f.Guest)
			}
		}
	} else {
		// vhost writes guest memory behind QEMU's back, which the search for
		// changed pages must not miss.
		fmt.Fprintf(&backend, "tap,id=n%d,ifname=%s,script=no,downscript=no,vhost=off", i, escape(s.TapName(i)))
	}
	return []string{
		"-netdev", backend.String(),
		// No boot ROM: a state holds none, and it would have to be equal.
		"-device", device("virtio-net-pci", fmt.Sprintf("net%d", i), slotNIC+i) +
			fmt.Sprintf(",netdev=n%d,mac=%s,romfile=", i, n.MAC),
	}
}

func device(driver, id string, slot int) string {
	return fmt.Sprintf("%s,id=%s,bus=pcie.0,addr=0x%x", driver, id, slot)
}

// escape doubles the commas that separate QEMU's options.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }
