package vm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"go.yaml.in/yaml/v3"
)

const testUUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

const fullSpec = `
name: web
uuid: 1b4e28ba-2fa1-11d2-883f-0016d3cca427
cpus: 2
memory: 1.5G
machine: pc-q35-7.2
cpu: max
accel: tcg
disks:
  - {name: root, size: 10G, format: qcow2, image: /images/debian.qcow2}
  - {path: /dev-disks/data.raw}
nics:
  - {type: user, forward: ["tcp:127.0.0.1:8080:80"]}
  - {bridge: br0, mac: "52:54:00:00:00:01"}
kernel: /boot/vmlinuz
initrd: /boot/initrd
append: console=ttyS0 quiet
protection: {level: resume, interval_seconds: 0.5, resync_rate: 50M}
restart: {policy: always, attempts: 5, window_seconds: 60, backoff_seconds: 1}
isolation: stop
recovery: {action: restart, priority: 5, after: [db, cache], attempts: 2, backoff_seconds: 3, failback: when-synced, settle_seconds: 30, home: a}
autostart: true
pvpanic: false
`

func testHost() Host {
	return Host{Accel: AccelTCG, CPUs: 4, Memory: 8 * GiB, QEMU: "/usr/bin/qemu-system-x86_64",
		Firmware: "/usr/share/seabios/bios-256k.bin"}
}

func TestParseSpec(t *testing.T) {
	s, err := ParseSpec([]byte(fullSpec))
	if err != nil {
		t.Fatal(err)
	}
	off := false
	want := Spec{
		Name: "web", UUID: testUUID, CPUs: 2, Memory: 1536 * MiB, Machine: "pc-q35-7.2", CPU: "max", Accel: "tcg",
		Disks:  []Disk{{Name: "root", Size: 10 * GiB, Format: "qcow2", Image: "/images/debian.qcow2"}, {Path: "/dev-disks/data.raw"}},
		NICs:   []NIC{{Type: "user", Forward: []string{"tcp:127.0.0.1:8080:80"}}, {Bridge: "br0", MAC: "52:54:00:00:00:01"}},
		Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd", Append: "console=ttyS0 quiet",
		Protection: Protection{Level: "resume", IntervalSeconds: 0.5, ResyncRate: 50 * MiB},
		Restart:    Restart{Policy: "always", Attempts: 5, WindowSeconds: 60, BackoffSeconds: 1},
		Isolation:  "stop",
		Recovery: Recovery{Action: "restart", Priority: 5, After: []string{"db", "cache"}, Attempts: 2, BackoffSeconds: 3,
			Failback: "when-synced", SettleSeconds: 30, Home: "a"},
		Autostart: true, PVPanic: &off,
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if s.Protection.Interval().Milliseconds() != 500 {
		t.Errorf("interval is %v", s.Protection.Interval())
	}
}

func TestParseSpecRefuses(t *testing.T) {
	tests := map[string]struct{ file, want string }{
		"unknown field":        {"name: a\nmemroy: 1G\n", `line 2: unknown field "memroy" of a guest`},
		"unknown disk field":   {"name: a\ndisks:\n  - name: x\n    sise: 1G\n", `line 4: unknown field "sise" of a disk`},
		"two mistakes":         {"nmae: a\nmemory: 1Q\n", `unknown unit "Q"`},
		"unknown recovery":     {"name: a\nrecovery: {befor: [x]}\n", `line 2: unknown field "befor" of recovery`},
		"bad size":             {"name: a\nmemory: 512MB\n", "line 2: size \"512MB\": unit MB is ambiguous"},
		"size of a list":       {"name: a\nmemory: [1]\n", "line 2: a size such as 512M is expected"},
		"wrong type":           {"name: a\ncpus: many\n", "line 2: `many`: a whole number is wanted here"},
		"a word for a mapping": {"name: a\nprotection: resume\n", "line 2: `resume`: a mapping (level: resume and so on) is wanted here"},
		"a list for a guest":   {"[1, 2]", "line 1: a guest (name: NAME and so on) is wanted here"},
		"twice":                {"name: a\nname: b\n", "already defined"},
		"two documents":        {"name: a\n---\nname: b\n", "second document"},
		"empty":                {"", "empty"},
		"not YAML":             {"name: [", "line 1"},
		"too large":            {strings.Repeat("#", maxSpec+1), "larger than 1MiB"},
	}
	for name, test := range tests {
		_, err := ParseSpec([]byte(test.file))
		if !errors.Is(err, ErrBadSpec) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	_, err := ParseSpec([]byte(tests["two mistakes"].file))
	if !strings.Contains(err.Error(), "nmae") {
		t.Errorf("only the first of two mistakes is reported: %v", err)
	}
}

func TestSpecRoundTrip(t *testing.T) {
	parsed, err := ParseSpec([]byte(fullSpec))
	if err != nil {
		t.Fatal(err)
	}
	want := parsed.Defaults(testHost())
	codecs := map[string]func(*Spec) error{
		"yaml": func(s *Spec) error {
			data, err := yaml.Marshal(want)
			if err == nil {
				*s, err = ParseSpec(data)
			}
			return err
		},
		"json": func(s *Spec) error {
			data, err := json.Marshal(want)
			return errors.Join(err, json.Unmarshal(data, s))
		},
		"msgpack": func(s *Spec) error {
			data, err := msgpack.Marshal(want)
			return errors.Join(err, msgpack.Unmarshal(data, s))
		},
	}
	for name, codec := range codecs {
		var got Spec
		if err := codec(&got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, want)
		}
	}
}

// The words of the three forms are the same, or users would learn two.
func TestTagsAgree(t *testing.T) {
	for _, value := range []any{Spec{}, Disk{}, NIC{}, Protection{}, Restart{}, Recovery{}} {
		typ := reflect.TypeOf(value)
		for i := range typ.NumField() {
			field := typ.Field(i)
			word := func(key string) string { w, _, _ := strings.Cut(field.Tag.Get(key), ","); return w }
			if word("yaml") == "" || word("yaml") != word("json") || word("yaml") != word("msgpack") {
				t.Errorf("%s.%s: tags differ: %s", typ.Name(), field.Name, field.Tag)
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	minimal := Spec{Name: "a", Disks: []Disk{{Size: GiB}}, NICs: []NIC{{}, {Bridge: "br0"}, {Tap: "t0"}}}
	s := minimal.Defaults(testHost())
	if err := s.Validate(testHost()); err != nil {
		t.Errorf("a minimal spec with defaults is refused: %v", err)
	}
	if again := s.Defaults(Host{Accel: AccelKVM}); !reflect.DeepEqual(again, s) {
		t.Errorf("defaults change a complete spec:\n%+v\n%+v", s, again)
	}
	if minimal.Disks[0].Name != "" || minimal.NICs[0].MAC != "" {
		t.Error("defaults wrote into the caller's spec")
	}
	if s.NICs[1].Type != NICBridge || s.NICs[2].Type != NICTap || s.NICs[0].Type != NICUser {
		t.Errorf("nic types: %+v", s.NICs)
	}
	if s.NICs[0].MAC == s.NICs[1].MAC || !strings.HasPrefix(s.NICs[0].MAC, "52:54:00:") {
		t.Errorf("MAC addresses: %+v", s.NICs)
	}
	fixed := Spec{Name: "a", UUID: testUUID, NICs: []NIC{{}}}
	if a, b := fixed.Defaults(testHost()), fixed.Defaults(testHost()); !reflect.DeepEqual(a, b) {
		t.Error("defaults of the same UUID differ")
	}
	if kvm := (Spec{Accel: AccelAuto}).Defaults(Host{Accel: AccelKVM}); kvm.Accel != AccelKVM || kvm.CPU != DefaultCPU {
		t.Errorf("on KVM: accel %s, cpu %s", kvm.Accel, kvm.CPU)
	}
	if s.Accel != AccelTCG || s.CPU != DefaultCPU {
		t.Errorf("on TCG: accel %s, cpu %s", s.Accel, s.CPU)
	}
}

func TestResourceUse(t *testing.T) {
	tcg := Spec{Memory: GiB, CPUs: 2, Accel: AccelTCG}.ResourceUse()
	kvm := Spec{Memory: GiB, CPUs: 2, Accel: AccelKVM}.ResourceUse()
	if kvm.Memory <= GiB || tcg.Memory <= kvm.Memory || tcg.CPUs != 2 {
		t.Errorf("tcg %v, kvm %v", tcg, kvm)
	}
	if huge := (Spec{Memory: 1<<63 - 1}).ResourceUse(); huge.Memory < 1<<62 {
		t.Errorf("wrapped around: %d", huge.Memory)
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(fullSpec))
	f.Add([]byte("name: a\ndisks: [{size: 1G}]\n"))
	f.Add([]byte("name: &x a\nuuid: *x\n---\n"))
	f.Add([]byte("protection: {interval_seconds: .nan}\nrestart: {backoff_seconds: -.inf}"))
	seeds, _ := filepath.Glob("testdata/*.yaml")
	for _, seed := range seeds {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec(data)
		if err != nil {
			if !errors.Is(err, ErrBadSpec) {
				t.Errorf("not an ErrBadSpec: %v", err)
			}
			return
		}
		s = s.Defaults(testHost())
		if s.ValidateReplica(testHost()) != nil {
			return
		}
		// What is accepted becomes exactly one argument per argument.
		for _, argument := range Cmdline(s, NewLayout("/s", "/r", "/m", s.UUID), testHost(), Options{}) {
			if strings.ContainsRune(argument, 0) || strings.ContainsRune(argument, '\n') {
				t.Errorf("argument %q", argument)
			}
		}
	})
}
