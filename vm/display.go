package vm

import "fmt"

// Values of Spec.Display.
const (
	DisplayNone = "none"
	// DisplayVNC is QEMU's standard VGA, shown by VNC on a unix socket: no port
	// of the host is opened.
	DisplayVNC = "vnc"
)

// videoMemory is what the VGA has. It holds 1920x1200 in true colour.
const videoMemory = 16 * MiB

// VideoDevice is the VGA's id.
const VideoDevice = "vga0"

// VideoBlock is QEMU's name, in a state, of the VGA's memory.
var VideoBlock = fmt.Sprintf("0000:00:%02x.0/vga.vram", slotVGA)

// VideoMemory is the memory of the guest's screen. It is QEMU's own, and no part
// of the guest's RAM.
func (s Spec) VideoMemory() Size {
	if s.Display == DisplayVNC {
		return videoMemory
	}
	return 0
}

// MemoryFile is the size of the guest's memory file: its RAM, which QEMU maps,
// and behind that a copy of the screen's memory as of the last checkpoint.
func (s Spec) MemoryFile() Size { return s.Memory.add(s.VideoMemory()) }

func displayArguments(s Spec, l Layout) []string {
	if s.Display != DisplayVNC {
		return nil
	}
	return []string{
		"-vnc", "unix:" + escape(l.VNC()),
		"-device", device("VGA", VideoDevice, slotVGA) + fmt.Sprintf(",vgamem_mb=%d", videoMemory/MiB),
	}
}
