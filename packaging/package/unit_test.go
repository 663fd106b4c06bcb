package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit reads KEY=VALUE lines of a packed unit file.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(built(t).tree, "usr/lib/systemd/system", name))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

func TestAgentUnit(t *testing.T) {
	settings := unit(t, "vmctl.service")
	for key, want := range map[string]string{
		"Type": "notify", "NotifyAccess": "main", "WatchdogSec": "10",
		"ExecStart": "/usr/bin/vmctl node run --config /etc/vmctl/vmctl.yaml",
		// Back before a lease of 2 s ends, and never given up.
		"Restart": "always", "RestartSec": "200ms", "StartLimitIntervalSec": "0",
		// Guests and their sockets outlive the agent.
		"KillMode": "process", "RuntimeDirectory": "vmctl", "RuntimeDirectoryPreserve": "yes", "OOMPolicy": "continue",
		"RuntimeDirectoryMode": "0700", "StateDirectory": "vmctl", "StateDirectoryMode": "0700",
		"LimitMEMLOCK": "infinity", "TasksMax": "infinity", "WantedBy": "multi-user.target",
	} {
		if got := settings[key]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	// QEMU inherits these, and cannot live with them: TCG writes code, guards are
	// real-time, disks may be anywhere, devices are kvm, tun and vhost-net.
	for _, key := range []string{
		"MemoryDenyWriteExecute", "RestrictRealtime", "PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "PrivateNetwork",
		"PrivateMounts", "PrivateTmp", "ProtectHome", "ProtectSystem", "ReadOnlyPaths", "SystemCallFilter", "User", "DynamicUser", "PrivateUsers",
		"MemoryMax", "ProtectControlGroups", "ProtectKernelTunables",
		// A Go program that the watchdog aborts exits with 2, as one that is used wrongly.
		"RestartPreventExitStatus",
	} {
		if settings[key] != nil {
			t.Errorf("%s=%q would break guests", key, settings[key])
		}
	}
	for _, capability := range []string{"CAP_SYS_NICE", "CAP_IPC_LOCK", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_KILL"} {
		if dropped := settings["CapabilityBoundingSet"]; strings.Contains(strings.Join(dropped, " "), capability) {
			t.Errorf("%s is dropped", capability)
		}
	}
}

func TestWitnessUnit(t *testing.T) {
	settings := unit(t, "vmctl-witness.service")
	for key, want := range map[string]string{
		"Type": "notify", "ExecStart": "/usr/bin/vmctl witness run --state-dir /var/lib/vmctl-witness",
		"DynamicUser": "yes", "StateDirectory": "vmctl-witness", "StateDirectoryMode": "0700", "CapabilityBoundingSet": "",
		"Restart": "always", "StartLimitIntervalSec": "0",
	} {
		if got := settings[key]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if settings["WatchdogSec"] != nil {
		t.Error("the witness does not feed a watchdog")
	}
}

// systemd's own opinion, where there is systemd.
func TestUnitsVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here: only the settings above are checked")
		return
	}
	b := built(t)
	for _, name := range []string{"vmctl.service", "vmctl-witness.service"} {
		data, err := os.ReadFile(filepath.Join(b.tree, "usr/lib/systemd/system", name))
		if err != nil {
			t.Fatal(err)
		}
		// The program is not installed here.
		text := strings.ReplaceAll(string(data), "/usr/bin/vmctl", filepath.Join(b.tree, "usr/bin/vmctl"))
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := run(t, analyze, "verify", "--man=no", file); out != "" {
			t.Errorf("%s: %s", name, out)
		}
		if name == "vmctl-witness.service" { // 100 is no protection at all
			run(t, analyze, "security", "--no-pager", "--offline=yes", "--threshold=20", file)
		}
	}
}
