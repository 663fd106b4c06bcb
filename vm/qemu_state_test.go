package vm

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// putDisk writes the counting boot sector to a disk of the guest.
func putDisk(t *testing.T, l Layout, d Disk) {
	t.Helper()
	path := filepath.Join(shortDir(t), "boot.raw")
	boot, err := os.ReadFile("testdata/boot/disk.bin")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, boot, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "qemu-img", "convert", "-f", "raw", "-O", d.Format, path, l.Disk(d, false).Path)
}

func putKernel(t *testing.T, l Layout) {
	t.Helper()
	kernel, err := os.ReadFile("testdata/boot/kernel.bin")
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{l.Kernel(): kernel, l.Initrd(): []byte("hello\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func putRAM(t *testing.T, l Layout, size Size) {
	t.Helper()
	if err := os.WriteFile(l.RAM(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.RAM(), int64(size)); err != nil {
		t.Fatal(err)
	}
}

// sectorCount is the count that the guest wrote to a raw disk.
func sectorCount(t *testing.T, path string) uint64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(binary.LittleEndian.Uint32(data[512:]))
}

var qemuCases = map[string]Spec{
	"raw":       {Disks: []Disk{{}}},
	"qcow2":     {Disks: []Disk{{Format: FormatQcow2}}, CPUs: 2},
	"two disks": {Disks: []Disk{{Format: FormatQcow2}, {Preallocate: true}}, NICs: []NIC{{}}},
	"kernel":    {Kernel: "/k", Initrd: "/i", Append: "a=b, c", Disks: []Disk{{}}, NICs: []NIC{{}, {}}},
	"no disk":   {Kernel: "/k", RNG: new(bool), GuestAgent: new(bool), PVPanic: new(bool)},
}

// The state of a guest loads on a host that has only its raw replicas, the
// guest counts on from where it was, writes to the replicas, and can reboot.
func TestQEMUStateLoadsOnReplica(t *testing.T) {
	h := realHost(t)
	for name, s := range qemuCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Name, s.Memory = "count", 32*MiB
			s = s.Defaults(h)
			here, there := testLayout(t, s.UUID), testLayout(t, s.UUID)
			for _, d := range s.Disks {
				putDisk(t, here, d)
			}
			if s.Kernel != "" {
				putKernel(t, here)
				putKernel(t, there)
			}
			putRAM(t, here, s.Memory)

			source := launch(t, Cmdline(s, here, h, Options{}), here)
			awaitCount(t, here, 5)
			checkBoot(t, s, serialLines(t, here))
			source.execute("stop", nil)
			blob := source.saveState()
			mustRun(t, "cp", "--sparse=always", here.RAM(), there.RAM())
			source.execute("quit", nil)
			<-source.done
			reached := lastCount(t, here)
			for _, d := range s.Disks {
				from, to := here.Disk(d, false), there.Disk(d, true)
				mustRun(t, "qemu-img", "convert", "-f", from.Format, "-O", to.Format, from.Path, to.Path)
				if n := sectorCount(t, to.Path); n < reached {
					t.Errorf("disk %s has count %d, the guest wrote %d", d.Name, n, reached)
				}
			}

			target := launch(t, Cmdline(s, there, h, Options{Incoming: true, Replica: true}), there)
			if state := target.state(); state != "inmigrate" {
				t.Errorf("target is %s before the load", state)
			}
			target.loadState(blob)
			target.execute("cont", nil)
			awaitCount(t, there, reached+5)
			lines := serialLines(t, there)
			if first := fmt.Sprintf("%08x", reached+2); !slices.Contains(lines, first) || slices.Contains(lines, "B") {
				t.Errorf("the guest did not go on from %d: %q", reached, lines)
			}
			target.execute("system_reset", nil)
			awaitTrue(t, func() error {
				if lines := serialLines(t, there); !slices.Contains(lines, "B") || lastCount(t, there) > reached {
					return fmt.Errorf("no reboot after the resume: %q", lines)
				}
				return nil
			})
			target.kill()
			for _, d := range s.Disks {
				if n := sectorCount(t, there.Disk(d, true).Path); n == 0 {
					t.Errorf("replica %s was not written", d.Name)
				}
			}
		})
	}
}

func checkBoot(t *testing.T, s Spec, lines []string) {
	t.Helper()
	text := strings.Join(lines, "\n")
	size := "00000000"
	if s.Initrd != "" {
		size = "00000006"
	}
	if s.Kernel != "" && !strings.Contains(text, s.Append+"\n"+size+"\n") {
		t.Errorf("kernel, command line or initrd did not arrive: %q", text)
	}
	if strings.Contains(text, "E") {
		t.Errorf("the guest could not write a disk: %q", text)
	}
}

// Both monitors answer at once, and the largest guest fits on its bus.
func TestQEMUTakesLargestGuest(t *testing.T) {
	t.Parallel()
	h := realHost(t)
	s := Spec{Name: "big", CPUs: 4, Memory: 32 * MiB, CPU: DefaultCPU}
	for range MaxDisks {
		s.Disks = append(s.Disks, Disk{})
	}
	for range MaxNICs {
		s.NICs = append(s.NICs, NIC{})
	}
	s = s.Defaults(h)
	l := testLayout(t, s.UUID)
	for _, d := range s.Disks {
		putDisk(t, l, d)
	}
	putRAM(t, l, s.Memory)
	p := launch(t, Cmdline(s, l, h, Options{Paused: true}), l)
	p.qmp = p.dial(l.GuardQMP())
	if state := p.state(); state != "prelaunch" {
		t.Errorf("a paused start is %s", state)
	}
	p.execute("cont", nil)
	awaitCount(t, l, 2)
	checkBoot(t, s, serialLines(t, l))
}
