package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// host is a throwaway root directory with a shell and a systemctl that only
// notes what it was asked; dpkg installs into it and runs the scripts inside.
type host struct{ root string }

func newHost(t *testing.T, systemd bool) host {
	t.Helper()
	h := host{t.TempDir()}
	for _, dir := range []string{"bin", "dev", "proc/1", "proc/42", "run", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "etc/systemd/system/multi-user.target.wants"} {
		h.mkdir(t, dir)
	}
	if systemd {
		h.mkdir(t, "run/systemd/system")
	}
	h.write(t, "var/lib/dpkg/status", "", 0o644)
	h.write(t, "dev/null", "", 0o666)
	h.write(t, "proc/1/cmdline", "/sbin/init\x00", 0o444)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bin/busybox", string(busybox), 0o755)
	for _, name := range []string{"sh", "cat", "tr", "grep", "rm", "rmdir"} {
		if err := os.Symlink("busybox", filepath.Join(h.root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	// /enabled is what systemd would know, /broken makes a restart fail.
	h.write(t, "bin/systemctl", "#!/bin/sh\necho \"$*\" >>/calls\n"+
		"case \"$1\" in is-enabled) [ -e /enabled ];; try-restart) [ ! -e /broken ];; esac\n", 0o755)
	return h
}

func (h host) mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(h.root, dir), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (h host) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.root, name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (h host) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(h.root, name))
	return err == nil
}

// calls returns, and forgets, what systemctl was asked.
func (h host) calls() string {
	file := filepath.Join(h.root, "calls")
	data, _ := os.ReadFile(file)
	_ = os.Remove(file)
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "; ")
}

func (h host) dpkg(t *testing.T, args ...string) string {
	t.Helper()
	words := append([]string{"--root=" + h.root, "--force-depends", "--force-confold", "--log=/dev/null"}, args...)
	cmd := exec.Command("dpkg", words...)
	cmd.Env = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg %v: %v: %s", args, err, out)
	}
	return string(out)
}

// script runs one script inside, with the words a package manager gives it.
func (h host) script(t *testing.T, text string, words ...string) string {
	t.Helper()
	h.write(t, "tmp/script", text, 0o755)
	cmd := exec.Command("/bin/sh", append([]string{"/tmp/script"}, words...)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: h.root}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("script %v: %v: %s", words, err, out)
	}
	return string(out)
}

func TestInstallUpgradeRemovePurge(t *testing.T) {
	b := built(t)
	h := newHost(t, true)
	wants := "etc/systemd/system/multi-user.target.wants/vmctl.service"
	expect := func(step, want string) {
		t.Helper()
		if got := h.calls(); got != want {
			t.Errorf("%s: systemctl was asked %q, want %q", step, got, want)
		}
	}

	h.dpkg(t, "-i", b.Deb)
	expect("install", "daemon-reload")
	cmd := exec.Command("/usr/bin/vmctl", "--version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: h.root}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), testVersion) {
		t.Errorf("the installed program: %v: %s", err, out)
	}

	h.write(t, "etc/vmctl/vmctl.yaml", "name: mine\n", 0o644)
	if err := os.Symlink("/usr/lib/systemd/system/vmctl.service", filepath.Join(h.root, wants)); err != nil {
		t.Fatal(err)
	}
	h.dpkg(t, "-i", b.Deb)
	expect("upgrade", "daemon-reload; try-restart vmctl.service; try-restart vmctl-witness.service")
	if data, _ := os.ReadFile(filepath.Join(h.root, "etc/vmctl/vmctl.yaml")); string(data) != "name: mine\n" {
		t.Errorf("the configuration was replaced: %s", data)
	}

	h.mkdir(t, "var/lib/vmctl/guests/1/disks")
	h.mkdir(t, "var/lib/vmctl-witness")
	h.write(t, "var/lib/vmctl/guests/1/disks/d0", "precious", 0o600)
	h.dpkg(t, "--remove", "vmctl")
	expect("remove", "stop vmctl.service vmctl-witness.service; daemon-reload")
	if h.exists("usr/bin/vmctl") || h.exists(wants) || !h.exists("etc/vmctl/vmctl.yaml") {
		t.Error("remove: the program and its links go, the configuration stays")
	}

	said := h.dpkg(t, "--purge", "vmctl")
	expect("purge", "daemon-reload")
	if h.exists("etc/vmctl") || h.exists("usr/share/doc/vmctl") || h.exists("var/lib/vmctl-witness") {
		t.Error("purge leaves the configuration or empty directories")
	}
	if data, _ := os.ReadFile(filepath.Join(h.root, "var/lib/vmctl/guests/1/disks/d0")); string(data) != "precious" {
		t.Error("purge deleted a guest's disk")
	}
	if !strings.Contains(said, "/var/lib/vmctl is kept") || strings.Contains(said, "vmctl-witness is kept") {
		t.Errorf("purge says: %s", said)
	}
}

// An image is built without systemd running: nothing is asked of it.
func TestInstallIntoImage(t *testing.T) {
	b := built(t)
	h := newHost(t, false)
	h.dpkg(t, "-i", b.Deb)
	h.dpkg(t, "-i", b.Deb)
	h.dpkg(t, "--purge", "vmctl")
	if got := h.calls(); got != "" {
		t.Errorf("systemctl was asked %q", got)
	}
}

// scripts returns those of the .deb and the .rpm by name.
func scripts(t *testing.T) map[string]string {
	t.Helper()
	b := built(t)
	found := map[string]string{}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		data, err := os.ReadFile(filepath.Join(b.control, name))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = string(data)
	}
	for name, tag := range map[string]string{"post": "POSTIN", "preun": "PREUN", "postun": "POSTUN"} {
		found[name] = run(t, "rpm", "-qp", "--queryformat", "%{"+tag+"}", b.RPM)
		if program := run(t, "rpm", "-qp", "--queryformat", "%{"+tag+"PROG}", b.RPM); program != "/bin/sh" {
			t.Errorf("%s is for %s", name, program)
		}
	}
	// No others, such as for transactions.
	if got := strings.Count(run(t, "rpm", "-qp", "--scripts", b.RPM), "scriptlet"); got != 3 {
		t.Errorf("rpm has %d scripts", got)
	}
	return found
}

func TestScripts(t *testing.T) {
	all := scripts(t)
	const restart = "daemon-reload; try-restart vmctl.service; try-restart vmctl-witness.service"
	const orphaned = "nothing looks after now: 2"
	for _, c := range []struct {
		script string
		words  string
		state  string // files that are there: enabled, broken, guests, disks
		calls  string
		says   string // nothing may be said if empty
	}{
		{"postinst", "configure", "", "daemon-reload", ""},
		{"postinst", "configure 0.1", "", restart, ""},
		{"postinst", "configure 0.1", "broken", restart, "journalctl -u vmctl.service"},
		{"postinst", "abort-remove", "", "daemon-reload; is-enabled --quiet vmctl.service; is-enabled --quiet vmctl-witness.service", ""},
		{"postinst", "abort-remove", "enabled", "daemon-reload; is-enabled --quiet vmctl.service; start vmctl.service; " +
			"is-enabled --quiet vmctl-witness.service; start vmctl-witness.service", ""},
		{"prerm", "upgrade 0.2", "guests", "", ""},
		{"prerm", "remove", "", "stop vmctl.service vmctl-witness.service", ""},
		{"prerm", "remove", "guests", "stop vmctl.service vmctl-witness.service", orphaned},
		{"postrm", "upgrade 0.2", "disks", "", ""},
		{"postrm", "remove", "disks", "daemon-reload", ""},
		{"postrm", "purge", "", "daemon-reload", ""},
		{"postrm", "purge", "disks", "daemon-reload", "/var/lib/vmctl is kept"},
		{"post", "1", "", "daemon-reload", ""},
		{"post", "2", "", restart, ""},
		{"post", "2", "broken", restart, "journalctl -u vmctl.service"},
		{"preun", "1", "guests", "", ""},
		{"preun", "0", "", "--no-reload disable --now vmctl.service vmctl-witness.service", ""},
		{"preun", "0", "guests", "--no-reload disable --now vmctl.service vmctl-witness.service", orphaned},
		{"postun", "1", "disks", "daemon-reload", ""},
		{"postun", "0", "disks", "daemon-reload", "/var/lib/vmctl is kept"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.script, c.words, c.state), func(t *testing.T) {
			h := newHost(t, true)
			switch c.state {
			case "guests":
				h.write(t, "proc/1/cmdline", "/usr/bin/vmctl\x00guard\x00/run/vmctl/g/0a1b2c3d/guard.json\x00", 0o444)
				h.write(t, "proc/42/cmdline", "/usr/bin/vmctl\x00guard\x00/srv/run/g/4a1b2c3d/guard.json\x00", 0o444)
			case "disks":
				h.mkdir(t, "var/lib/vmctl/guests/1")
			case "":
			default:
				h.write(t, c.state, "", 0o644)
			}
			said := h.script(t, all[c.script], strings.Fields(c.words)...)
			if got := h.calls(); got != c.calls {
				t.Errorf("systemctl was asked %q, want %q", got, c.calls)
			}
			if !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Errorf("it says %q, want %q", said, c.says)
			}
			if c.state == "disks" && !h.exists("var/lib/vmctl/guests/1") {
				t.Error("a guest is gone")
			}
		})
	}
}

// Every program that a script may run: none of them knows the network.
func TestScriptsUseNoNetwork(t *testing.T) {
	for name, text := range scripts(t) {
		for _, word := range []string{"apt", "dnf", "yum", "curl", "wget", "http", "/dev/tcp", "ping", "ssh", "rm -r", "kill", "vmctl node", "vmctl vm"} {
			if strings.Contains(text, word) {
				t.Errorf("%s has %q", name, word)
			}
		}
	}
}
