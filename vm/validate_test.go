package vm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestValidateRefuses(t *testing.T) {
	dir := t.TempDir()
	qcow2 := filepath.Join(dir, "disk.qcow2")
	raw := filepath.Join(dir, "disk.raw")
	for path, content := range map[string]string{qcow2: "QFI\xfb....", raw: "\x00\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		change func(*Spec)
		want   string // empty: accepted
	}{
		{"unchanged", func(s *Spec) {}, ""},
		{"no name", func(s *Spec) { s.Name = "" }, "name is missing"},
		{"path in name", func(s *Spec) { s.Name = "a/b" }, `name "a/b"`},
		{"dots in name", func(s *Spec) { s.Name = "a..b" }, `name "a..b"`},
		{"capital in name", func(s *Spec) { s.Name = "Web" }, `name "Web"`},
		{"newline in name", func(s *Spec) { s.Name = "web\n" }, "name"},
		{"63 characters", func(s *Spec) { s.Name = strings.Repeat("a", 63) }, ""},
		{"64 characters", func(s *Spec) { s.Name = strings.Repeat("a", 64) }, "name"},
		{"uuid is a path", func(s *Spec) { s.UUID = "../../etc" }, "uuid"},
		{"uuid in capitals", func(s *Spec) { s.UUID = strings.ToUpper(testUUID) }, "uuid"},
		{"no cpus", func(s *Spec) { s.CPUs = -1 }, "cpus -1"},
		{"more cpus than the host", func(s *Spec) { s.CPUs = 5 }, "cpus 5: this host has 4"},
		{"memory without unit", func(s *Spec) { s.Memory = 512 }, "was a unit forgotten"},
		{"odd memory", func(s *Spec) { s.Memory = 32*MiB + 1 }, "not a multiple"},
		{"more memory than the host", func(s *Spec) { s.Memory = 9 * GiB }, "this host has 8GiB"},
		{"unversioned machine", func(s *Spec) { s.Machine = "q35" }, "versioned"},
		{"machine with options", func(s *Spec) { s.Machine = "pc-q35-7.2,accel=kvm" }, "versioned"},
		{"kvm without kvm", func(s *Spec) { s.Accel = AccelKVM }, "KVM does not work"},
		{"accel auto left", func(s *Spec) { s.Accel = "auto" }, "accel"},
		{"cpu with space", func(s *Spec) { s.CPU = "max -foo" }, "cpu"},
		{"cpu host on tcg", func(s *Spec) { s.CPU = "host" }, "needs accel kvm"},
		{"cpu host resumed", func(s *Spec) { s.CPU = "host,+x"; s.Protection.Level = "resume" }, "both hosts have"},
		{"interval of no level", func(s *Spec) { s.Protection = Protection{Level: "none", IntervalSeconds: -1} }, "interval_seconds -1"},
		{"interval of restart", func(s *Spec) { s.Protection = Protection{Level: "restart", IntervalSeconds: math.NaN()} }, "interval_seconds NaN"},
		{"display", func(s *Spec) { s.Display = "spice" }, "display"},
		{"disk twice", func(s *Spec) { s.Disks = append(s.Disks, s.Disks[0]) }, "listed twice"},
		{"disk without anything", func(s *Spec) { s.Disks[0].Size = 0 }, "give a size"},
		{"disk path and size", func(s *Spec) { s.Disks[0].Path = raw }, "takes no image, size"},
		{"disk name is a path", func(s *Spec) { s.Disks[0].Name = "../x" }, "disk 0: name"},
		{"disk format", func(s *Spec) { s.Disks[0].Format = "vmdk" }, "use raw or qcow2"},
		{"disk size", func(s *Spec) { s.Disks[0].Size = MiB + 1 }, "multiple of 512"},
		{"disk image missing", func(s *Spec) { s.Disks[0].Image = "/nowhere" }, "no such file"},
		{"disk image relative", func(s *Spec) { s.Disks[0].Image = "x.img" }, "absolute path"},
		{"disk image is a directory", func(s *Spec) { s.Disks[0].Image = dir }, "is not a file"},
		{"disk path", func(s *Spec) { s.Disks[0] = Disk{Name: "a", Path: raw, Format: "raw"} }, ""},
		{"qcow2 as raw", func(s *Spec) { s.Disks[0] = Disk{Name: "a", Path: qcow2, Format: "raw"} }, "not in format raw"},
		{"raw as qcow2", func(s *Spec) { s.Disks[0] = Disk{Name: "a", Path: raw, Format: "qcow2"} }, "not in format qcow2"},
		{"same path twice", func(s *Spec) {
			s.Disks = []Disk{{Name: "a", Path: raw, Format: "raw"}, {Name: "b", Path: raw, Format: "raw"}}
		}, "another disk's"},
		{"too many disks", func(s *Spec) {
			s.Disks = nil
			for i := range MaxDisks + 1 {
				s.Disks = append(s.Disks, Disk{Name: fmt.Sprint("d", i), Size: MiB, Format: "raw"})
			}
		}, "at most 12"},
		{"bad mac", func(s *Spec) { s.NICs[0].MAC = "52:54:00" }, "mac"},
		{"group mac", func(s *Spec) { s.NICs[0].MAC = "01:00:5e:00:00:01" }, "one card"},
		{"same mac", func(s *Spec) { s.NICs = append(s.NICs, s.NICs[0]); s.NICs[1].MAC = strings.ToUpper(s.NICs[0].MAC) }, "another nic's"},
		{"nic type", func(s *Spec) { s.NICs[0].Type = "vde" }, "use user, bridge or tap"},
		{"bridge without bridge", func(s *Spec) { s.NICs[0].Type = NICBridge }, "needs bridge"},
		{"bridge name", func(s *Spec) { s.NICs[0].Type, s.NICs[0].Bridge = NICBridge, "br0,script=x" }, "not the name"},
		{"user with tap", func(s *Spec) { s.NICs[0].Tap = "t0" }, "takes no tap"},
		{"tap resumed", func(s *Spec) {
			s.NICs[0].Type, s.NICs[0].Tap, s.Protection = NICTap, "t0", Protection{"resume", 1, 0}
		}, "use a bridge"},
		{"forward on a bridge", func(s *Spec) {
			s.NICs[0] = NIC{Type: NICBridge, Bridge: "br0", MAC: s.NICs[0].MAC, Forward: []string{"tcp:127.0.0.1:1:1"}}
		}, "for type user"},
		{"forward twice", func(s *Spec) { s.NICs[0].Forward = []string{"tcp:127.0.0.1:81:80", "tcp:127.0.0.1:81:82"} }, "twice"},
		{"forward", func(s *Spec) { s.NICs[0].Forward = []string{"tcp:localhost:80:80"} }, "IPv4"},
		{"kernel missing", func(s *Spec) { s.Kernel = "/nowhere" }, "kernel"},
		{"append without kernel", func(s *Spec) { s.Append = "quiet" }, "need a kernel"},
		{"append with newline", func(s *Spec) { s.Kernel, s.Append = raw, "a\nb" }, "one line"},
		{"protection", func(s *Spec) { s.Protection.Level = "full" }, "use none, restart or resume"},
		{"ft", func(s *Spec) { s.Protection = Protection{"ft", 1, 0} }, "not available yet"},
		{"interval", func(s *Spec) { s.Protection = Protection{"resume", math.NaN(), 0} }, "interval_seconds"},
		{"no interval", func(s *Spec) { s.Protection = Protection{"resume", 0, 0} }, "interval_seconds"},
		{"resync rate", func(s *Spec) { s.Protection = Protection{"restart", 1, 1000} }, "resync_rate"},
		{"negative resync rate", func(s *Spec) { s.Protection = Protection{"restart", 1, -1} }, "resync_rate"},
		{"isolation", func(s *Spec) { s.Isolation = "thaw" }, "use freeze or stop"},
		{"restart policy", func(s *Spec) { s.Restart.Policy = "sometimes" }, "on-failure"},
		{"restart attempts", func(s *Spec) { s.Restart.Attempts = -1 }, "attempts"},
		{"restart backoff", func(s *Spec) { s.Restart.BackoffSeconds = math.Inf(1) }, "backoff_seconds"},
	}
	for _, test := range tests {
		base := Spec{Name: "web", UUID: testUUID, Disks: []Disk{{Name: "root", Size: GiB}}, NICs: []NIC{{Type: "user"}}}
		s := base.Defaults(testHost())
		test.change(&s)
		err := s.Validate(testHost())
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: refused: %v", test.name, err)
		case test.want != "" && (!errors.Is(err, ErrBadSpec) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestValidateReportsAll(t *testing.T) {
	s := Spec{Name: "a/b", Memory: 1, Kernel: "/nowhere"}.Defaults(testHost())
	var bad *SpecError
	if err := s.Validate(testHost()); !errors.As(err, &bad) || len(bad.Problems) != 3 {
		t.Errorf("want three problems, got %v", err)
	}
	if err := s.ValidateReplica(testHost()); !errors.As(err, &bad) || len(bad.Problems) != 2 {
		t.Errorf("want two problems without the file, got %v", err)
	}
}

func TestLayout(t *testing.T) {
	l := NewLayout("/var/lib/vmctl", "/run/vmctl", "/run/vmctl/ram", testUUID)
	if err := l.Check(); err != nil {
		t.Error(err)
	}
	if l.RAM() != "/run/vmctl/ram/"+testUUID+".ram" || l.AgentQMP() != "/run/vmctl/g/1b4e28ba/qmp.sock" {
		t.Errorf("%+v", l)
	}
	deep := NewLayout("/s", "/"+strings.Repeat("d", 90), "/m", testUUID)
	if err := deep.Check(); err == nil {
		t.Error("a socket path over the limit was accepted")
	}
	d := Disk{Name: "root", Format: FormatQcow2}
	outside := Disk{Name: "data", Format: FormatQcow2, Path: "/srv/data.qcow2"}
	for _, test := range []struct {
		got  DiskFile
		want DiskFile
	}{
		{l.Disk(d, false), DiskFile{l.State + "/disks/root.qcow2", "qcow2"}},
		{l.Disk(d, true), DiskFile{l.State + "/disks/root.raw", "raw"}},
		{l.Disk(outside, false), DiskFile{"/srv/data.qcow2", "qcow2"}},
		{l.Disk(outside, true), DiskFile{l.State + "/disks/data.raw", "raw"}},
	} {
		if test.got != test.want {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	for _, text := range []string{"tcp:127.0.0.1:8080:80", "udp:0.0.0.0:53:53", "tcp::1:2", "tcp:[::1]:1:2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		forward, err := ParseForward(text)
		if err != nil {
			return
		}
		if forward.Guest == 0 || forward.Host.Port() == 0 || !forward.Host.Addr().Is4() {
			t.Errorf("%q gave %+v", text, forward)
		}
	})
}
