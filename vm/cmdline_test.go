package vm

import (
	"path/filepath"
	"strings"
	"testing"

	"vmctl/ha/golden"
)

// cmdlineCases are launched by TestQEMUAcceptsEveryLine too.
func cmdlineCases() map[string]Spec {
	off := false
	return map[string]Spec{
		"minimal": {Name: "minimal"},
		"full": {
			Name: "full", CPUs: 2, Memory: 1536 * MiB,
			Disks: []Disk{{Name: "root", Size: GiB, Format: FormatQcow2}, {Name: "data", Size: GiB, Preallocate: true}},
			NICs: []NIC{
				{Type: NICUser, Forward: []string{"tcp:127.0.0.1:8080:80", "udp:0.0.0.0:5353:53"}},
				{Type: NICBridge, Bridge: "br0"}, {Type: NICTap, Tap: "mytap"},
			},
		},
		"kernel":  {Name: "kernel", Kernel: "/k", Initrd: "/i", Append: "console=ttyS0, quiet", Disks: []Disk{{Size: GiB}}},
		"bare":    {Name: "bare", PVPanic: &off, RNG: &off, GuestAgent: &off},
		"kvm":     {Name: "kvm", Accel: AccelKVM},
		"vnc":     {Name: "vnc", Display: DisplayVNC},
		"outside": {Name: "outside", Disks: []Disk{{Path: "/srv/a,b.qcow2", Format: FormatQcow2}}},
	}
}

func TestCmdlineGolden(t *testing.T) {
	for name, s := range cmdlineCases() {
		s.UUID = testUUID
		s = s.Defaults(testHost())
		l := NewLayout("/var/lib/vmctl", "/run/vmctl", "/dev/shm/vmctl", s.UUID)
		line := strings.Join(Cmdline(s, l, testHost(), Options{}), "\n") + "\n"
		// A saved state loads only into the line it was saved from: write it anew
		// only if the hardware stays the same.
		golden.Compare(t, filepath.Join("cmdline", name+".golden"), line)
	}
}

// hardware leaves out what may differ between two hosts.
func hardware(line []string) string {
	var kept []string
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case "-device", "-machine", "-cpu", "-smp", "-m", "-global", "-uuid", "-accel", "-rtc", "-append":
			kept = append(kept, line[i]+" "+line[i+1])
		}
	}
	return strings.Join(kept, "\n")
}

func TestCmdlineSameHardwareEverywhere(t *testing.T) {
	for name, s := range cmdlineCases() {
		s = s.Defaults(testHost())
		here := NewLayout("/var/lib/vmctl", "/run/vmctl", "/dev/shm/vmctl", s.UUID)
		there := NewLayout("/srv/b,c", "/run/b", "/mnt/ram", s.UUID)
		other := testHost()
		other.QEMU, other.Firmware, other.CPUs = "/opt/qemu", "/opt/bios", 64
		source := Cmdline(s, here, testHost(), Options{})
		target := Cmdline(s, there, other, Options{Incoming: true, Replica: true})
		if a, b := hardware(source), hardware(target); a != b {
			t.Errorf("%s: hardware differs:\n%s\n--\n%s", name, a, b)
		}
		text := strings.Join(target, " ")
		if !strings.HasSuffix(text, " -incoming defer -S") {
			t.Errorf("%s: target does not wait: %s", name, text)
		}
		if strings.Contains(text, "driver=qcow2") || strings.Contains(text, "/srv/a,,b") {
			t.Errorf("%s: target does not use its raw replicas: %s", name, text)
		}
		if len(s.Disks) > 0 && !strings.Contains(text, "filename=/srv/b,,c/guests/"+s.UUID+"/disks/") {
			t.Errorf("%s: comma in a path is not escaped: %s", name, text)
		}
	}
}

// Every device has an id and an address of its own, up to the largest guest.
func TestCmdlineAddressesAreUnique(t *testing.T) {
	s := Spec{Name: "big"}
	for range MaxDisks {
		s.Disks = append(s.Disks, Disk{Size: GiB})
	}
	for range MaxNICs {
		s.NICs = append(s.NICs, NIC{})
	}
	s = s.Defaults(testHost())
	if err := s.Validate(testHost()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	line := Cmdline(s, NewLayout("/s", "/r", "/m", s.UUID), testHost(), Options{Paused: true})
	for _, argument := range line {
		for _, part := range strings.Split(argument, ",") {
			key, _, _ := strings.Cut(part, "=")
			unique := map[string]bool{"addr": true, "id": true, "node-name": true, "mac": true, "bootindex": true, "path": true}
			if unique[key] && seen[part] {
				t.Errorf("%s is used twice", part)
			}
			seen[part] = true
		}
	}
	if line[len(line)-1] != "-S" || seen["addr=0x1f"] || seen["addr=0x1c"] {
		t.Errorf("line: %v", line)
	}
}
