package vm

import (
	"time"

	"vmctl/vm/guard"
)

// Spec is what the user asked for, in the words of the command line and of the
// spec file. A stored spec has gone through Defaults and Validate.
type Spec struct {
	Name    string `yaml:"name" json:"name" msgpack:"name"`
	UUID    string `yaml:"uuid,omitempty" json:"uuid,omitempty" msgpack:"uuid,omitempty"`
	CPUs    int    `yaml:"cpus,omitempty" json:"cpus,omitempty" msgpack:"cpus,omitempty"`
	Memory  Size   `yaml:"memory,omitempty" json:"memory,omitempty" msgpack:"memory,omitempty"`
	Machine string `yaml:"machine,omitempty" json:"machine,omitempty" msgpack:"machine,omitempty"`
	// CPU is QEMU's CPU model, with its +feature list if any.
	CPU   string `yaml:"cpu,omitempty" json:"cpu,omitempty" msgpack:"cpu,omitempty"`
	Accel string `yaml:"accel,omitempty" json:"accel,omitempty" msgpack:"accel,omitempty"`

	Disks []Disk `yaml:"disks,omitempty" json:"disks,omitempty" msgpack:"disks,omitempty"`
	NICs  []NIC  `yaml:"nics,omitempty" json:"nics,omitempty" msgpack:"nics,omitempty"`

	// Kernel, Initrd and Append boot a kernel directly. The files are copied
	// into the guest's directory when it is created, for the peer needs them too.
	Kernel string `yaml:"kernel,omitempty" json:"kernel,omitempty" msgpack:"kernel,omitempty"`
	Initrd string `yaml:"initrd,omitempty" json:"initrd,omitempty" msgpack:"initrd,omitempty"`
	Append string `yaml:"append,omitempty" json:"append,omitempty" msgpack:"append,omitempty"`
	// Display is the guest's screen: none, or vnc.
	Display string `yaml:"display,omitempty" json:"display,omitempty" msgpack:"display,omitempty"`

	Protection Protection `yaml:"protection,omitempty" json:"protection" msgpack:"protection"`
	Restart    Restart    `yaml:"restart,omitempty" json:"restart" msgpack:"restart"`
	// Isolation is what happens to the guest when this host loses the lease.
	Isolation string `yaml:"isolation,omitempty" json:"isolation,omitempty" msgpack:"isolation,omitempty"`
	// Recovery is left out of the encoding while empty, as older agents have it.
	Recovery  Recovery `yaml:"recovery,omitempty" json:"recovery" msgpack:"recovery,omitempty"`
	Autostart bool     `yaml:"autostart,omitempty" json:"autostart" msgpack:"autostart"`
	// Standby is whether a QEMU waits on the peer to take the guest; nil: it does.
	Standby *bool `yaml:"standby,omitempty" json:"standby,omitempty" msgpack:"standby,omitempty"`

	// PVPanic, RNG and GuestAgent are on unless switched off; nil means the
	// user did not say.
	PVPanic    *bool `yaml:"pvpanic,omitempty" json:"pvpanic,omitempty" msgpack:"pvpanic,omitempty"`
	RNG        *bool `yaml:"rng,omitempty" json:"rng,omitempty" msgpack:"rng,omitempty"`
	GuestAgent *bool `yaml:"guest_agent,omitempty" json:"guest_agent,omitempty" msgpack:"guest_agent,omitempty"`
}

// Disk is one virtual disk. It is created empty from Size, or copied from
// Image, or is the existing file Path, which stays where it is and is never
// removed.
type Disk struct {
	Name   string `yaml:"name,omitempty" json:"name,omitempty" msgpack:"name,omitempty"`
	Size   Size   `yaml:"size,omitempty" json:"size,omitempty" msgpack:"size,omitempty"`
	Format string `yaml:"format,omitempty" json:"format,omitempty" msgpack:"format,omitempty"`
	Image  string `yaml:"image,omitempty" json:"image,omitempty" msgpack:"image,omitempty"`
	Path   string `yaml:"path,omitempty" json:"path,omitempty" msgpack:"path,omitempty"`
	// Preallocate takes the whole space at once, and keeps it: what the guest
	// discards is not given back.
	Preallocate bool `yaml:"preallocate,omitempty" json:"preallocate,omitempty" msgpack:"preallocate,omitempty"`
}

// NIC is one network card.
type NIC struct {
	Type   string `yaml:"type,omitempty" json:"type,omitempty" msgpack:"type,omitempty"`
	Bridge string `yaml:"bridge,omitempty" json:"bridge,omitempty" msgpack:"bridge,omitempty"`
	Tap    string `yaml:"tap,omitempty" json:"tap,omitempty" msgpack:"tap,omitempty"`
	MAC    string `yaml:"mac,omitempty" json:"mac,omitempty" msgpack:"mac,omitempty"`
	// Forward lists ports of the host that lead into a guest on a user
	// network, as "tcp:127.0.0.1:8080:80".
	Forward []string `yaml:"forward,omitempty" json:"forward,omitempty" msgpack:"forward,omitempty"`
}

// Protection says what the peer must be able to do when this host dies.
type Protection struct {
	Level string `yaml:"level,omitempty" json:"level" msgpack:"level"`
	// IntervalSeconds is the time between two checkpoints.
	IntervalSeconds float64 `yaml:"interval_seconds,omitempty" json:"interval_seconds,omitempty" msgpack:"interval_seconds,omitempty"`
	// ResyncRate bounds how many bytes of its disks a second are compared with, and
	// sent to, a replica that is made whole; 0: no bound.
	ResyncRate Size `yaml:"resync_rate,omitempty" json:"resync_rate,omitempty" msgpack:"resync_rate,omitempty"`
}

// Interval is the time between two checkpoints.
func (p Protection) Interval() time.Duration {
	return time.Duration(p.IntervalSeconds * float64(time.Second))
}

// Restart says whether a guest that ended is started again on this host.
type Restart struct {
	Policy string `yaml:"policy,omitempty" json:"policy" msgpack:"policy"`
	// Attempts is how many restarts may happen within WindowSeconds.
	Attempts      int     `yaml:"attempts,omitempty" json:"attempts,omitempty" msgpack:"attempts,omitempty"`
	WindowSeconds float64 `yaml:"window_seconds,omitempty" json:"window_seconds,omitempty" msgpack:"window_seconds,omitempty"`
	// BackoffSeconds is the wait before the first restart; it doubles with
	// each further one in the window.
	BackoffSeconds float64 `yaml:"backoff_seconds,omitempty" json:"backoff_seconds,omitempty" msgpack:"backoff_seconds,omitempty"`
}

// Values of Spec.Accel.
const (
	AccelAuto = "auto"
	AccelKVM  = "kvm"
	AccelTCG  = "tcg"
)

// Values of Disk.Format.
const (
	FormatRaw   = "raw"
	FormatQcow2 = "qcow2"
)

// Values of NIC.Type.
const (
	NICUser   = "user"
	NICBridge = "bridge"
	NICTap    = "tap"
)

// Values of Protection.Level.
const (
	ProtectNone    = "none"
	ProtectRestart = "restart"
	ProtectResume  = "resume"
	ProtectFT      = "ft"
)

// Values of Spec.Isolation.
const (
	IsolationFreeze = string(guard.Freeze) // it goes on where it was when the lease is back
	IsolationStop   = string(guard.Stop)   // QEMU is killed, and the guest booted when the lease is back
)

// Values of Restart.Policy.
const (
	RestartNever     = "never"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// Bounds of what the fixed PCI addresses leave room for.
const (
	MaxDisks = 12
	MaxNICs  = 8
	MaxCPUs  = 255
)

// on reads a switch that is on unless the user said otherwise.
func on(b *bool) bool { return b == nil || *b }

// Use is what a guest takes from its host.
type Use struct {
	Memory Size // bytes, guest RAM and QEMU's own
	Files  Size // of it, what is in a file of the host's tmpfs
	CPUs   int
}

// QEMU's own memory: measured at about 55 MB for a small guest, plus page
// tables and I/O buffers; under TCG the translated code comes on top.
const (
	overhead     = 128 * MiB
	translations = 256 * MiB
)

// ResourceUse says what the guest takes from the host at most. The RAM counts
// in full although its file is sparse, for the guest may write all of it. The
// screen's memory counts twice: QEMU has it, and the memory file a copy.
func (s Spec) ResourceUse() Use {
	memory := s.MemoryFile().add(s.VideoMemory()).add(overhead).add(s.Memory / 256)
	if s.Accel != AccelKVM {
		memory = memory.add(translations)
	}
	return Use{Memory: memory, Files: s.MemoryFile(), CPUs: s.CPUs}
}
