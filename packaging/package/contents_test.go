package packages

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wanted is everything in both packages, and its mode.
var wanted = map[string]string{
	"/etc/vmctl/":           "drwxr-xr-x",
	"/etc/vmctl/vmctl.yaml": "-rw-r--r--",
	"/usr/bin/vmctl":        "-rwxr-xr-x",
	"/usr/lib/systemd/system/vmctl-witness.service": "-rw-r--r--",
	"/usr/lib/systemd/system/vmctl.service":         "-rw-r--r--",
	"/usr/share/bash-completion/completions/vmctl":  "-rw-r--r--",
	"/usr/share/doc/vmctl/":                         "drwxr-xr-x",
	"/usr/share/doc/vmctl/CHANGELOG.md":             "-rw-r--r--",
	"/usr/share/doc/vmctl/LICENSE":                  "-rw-r--r--",
	"/usr/share/doc/vmctl/README.md":                "-rw-r--r--",
	"/usr/share/doc/vmctl/THIRD-PARTY":              "-rw-r--r--",
	"/usr/share/man/man8/vmctl.8.gz":                "-rw-r--r--",
}

// shared are directories of the system, which only a .deb lists.
var shared = []string{
	"/etc/", "/usr/", "/usr/bin/", "/usr/lib/", "/usr/lib/systemd/", "/usr/lib/systemd/system/", "/usr/share/",
	"/usr/share/bash-completion/", "/usr/share/bash-completion/completions/", "/usr/share/doc/", "/usr/share/man/", "/usr/share/man/man8/",
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s: %s is %q, want %q", what, name, got[name], mode)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s should not be there", what, name)
		}
	}
}

func TestDebContents(t *testing.T) {
	want := maps.Clone(wanted)
	want["/usr/share/doc/vmctl/copyright"] = "-rw-r--r--"
	for _, dir := range shared {
		want[dir] = "drwxr-xr-x"
	}
	got := map[string]string{}
	for line := range strings.Lines(run(t, "dpkg-deb", "-c", built(t).Deb)) {
		words := strings.Fields(line) // mode owner size date time name
		got[strings.TrimPrefix(words[5], ".")] = words[0]
		if words[1] != "root/root" || words[3] != "2023-11-14" {
			t.Errorf("owner or date: %s", line)
		}
	}
	compare(t, "deb", got, want)
}

func TestRPMContents(t *testing.T) {
	got := map[string]string{}
	for line := range strings.Lines(run(t, "rpm", "-qp", "--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]", built(t).RPM)) {
		words := strings.Fields(line)
		if name := words[3]; strings.HasPrefix(words[0], "d") {
			got[name+"/"] = words[0]
		} else {
			got[name] = words[0]
		}
		flags := strings.Join(words[4:], "")
		if words[1] != "root" || words[2] != "root" || (words[3] == "/etc/vmctl/vmctl.yaml") != (flags == "cn") {
			t.Errorf("owner or flags: %s", line)
		}
	}
	compare(t, "rpm", got, wanted)
}

func TestDebControl(t *testing.T) {
	b := built(t)
	for field, want := range map[string]string{
		"Package": "vmctl", "Version": packed, "Architecture": "amd64", "Section": "admin", "Priority": "optional",
		"Depends": "qemu-system-x86, qemu-utils, seabios", "Recommends": "", "Pre-Depends": "",
	} {
		if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", b.Deb, field)); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	names, err := filepath.Glob(b.control + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		names[i] = filepath.Base(name)
	}
	if !slices.Equal(names, []string{"conffiles", "control", "md5sums", "postinst", "postrm", "prerm"}) {
		t.Errorf("control files %v", names)
	}
	conffiles, err := os.ReadFile(b.control + "/conffiles")
	if err != nil || strings.TrimSpace(string(conffiles)) != "/etc/vmctl/vmctl.yaml" {
		t.Errorf("conffiles %q, %v", conffiles, err)
	}
}

func TestRPMHeader(t *testing.T) {
	b := built(t)
	query := func(format string) string {
		return strings.TrimSpace(run(t, "rpm", "-qp", "--queryformat", format, b.RPM))
	}
	for format, want := range map[string]string{
		"%{NAME} %{VERSION} %{RELEASE} %{ARCH}": "vmctl " + packed + " 1 x86_64",
		"%{LICENSE}":                            "Apache-2.0",
		"%{BUILDHOST} %{BUILDTIME}":             "localhost 1700000000",
	} {
		if got := query(format); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	var requires []string
	for line := range strings.Lines(run(t, "rpm", "-qp", "--requires", b.RPM)) {
		if line = strings.TrimPrefix(strings.TrimSpace(line), "manual: "); !strings.HasPrefix(line, "rpmlib(") {
			requires = append(requires, line)
		}
	}
	slices.Sort(requires)
	if !slices.Equal(requires, []string{"(qemu-kvm or qemu-system-x86-core)", "qemu-img", "seabios-bin"}) {
		t.Errorf("requires %q", requires)
	}
	run(t, "rpm", "--checksig", "--nosignature", b.RPM)
}
