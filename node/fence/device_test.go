package fence

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRealAgent: the agents of the package fence-agents.
func TestRealAgent(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "power")
	write(t, state, "on", 0o600)
	d := Device{Agent: "fence_dummy", Options: map[string]string{"status_file": state}, Timeout: 20 * time.Second}
	if power, err := d.Verify(t.Context(), nil); power != On || err != nil {
		t.Fatalf("before: %v, %v", power, err)
	}
	if err := d.Off(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(state); string(data) != "off" {
		t.Errorf("state %q, %v", data, err)
	}
	if power, err := d.Verify(t.Context(), nil); power != Off || err != nil {
		t.Errorf("after: %v, %v", power, err)
	}
	// Once more: it is off already.
	if err := d.Off(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestRefused: no agent is asked to power off that could not confirm it, or
// would switch something else.
func TestRefused(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "x", 0o600)
	for _, test := range []struct {
		d    Device
		says string
	}{
		{Device{Agent: "fence_scsi"}, "leaves it running"},
		{Device{Agent: "fence_mpath"}, "leaves it running"},
		{Device{Agent: "fence_kdump"}, "cannot say whether a node is off"},
		{Device{Agent: "fence_ovh"}, "cannot say whether a node is off"},
		{Device{Agent: "fence_ipmilan", Options: map[string]string{"adress": "192.0.2.1"}}, `no option "adress"`},
		{Device{Agent: "fence_dummy", SecretFiles: map[string]string{"password": secret}}, `no option "password"`},
		{Device{Agent: "fence_nosuch"}, "install the package fence-agents"},
		{Device{Agent: "/nonexistent/agent"}, "no such file"},
		{Device{Agent: "/etc/passwd"}, "permission denied"},
		{Device{Agent: "/bin/true"}, "is it a fence agent?"},
		{Device{Agent: "../bin/sh"}, "give a name"},
	} {
		if _, err := test.d.Verify(t.Context(), nil); !errors.Is(err, ErrAgent) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: verify: %v", test.d.Agent, err)
		}
		if err := test.d.Off(t.Context(), nil); !errors.Is(err, ErrAgent) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: off: %v", test.d.Agent, err)
		}
	}
}

// TestKnownAgents: the checks let through what people use.
func TestKnownAgents(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "x", 0o600)
	for agent, options := range map[string]map[string]string{
		"fence_ipmilan": {"ip": "192.0.2.1", "username": "admin", "lanplus": "1", "method": "onoff"},
		"fence_redfish": {"ipaddr": "192.0.2.1", "login": "admin", "ssl-insecure": "1"},
		"fence_apc":     {"ip": "192.0.2.1", "username": "apc", "plug": "1,2"},
	} {
		d := Device{Agent: agent, Options: options, SecretFiles: map[string]string{"password": secret}}
		if _, err := d.prepare(t.Context(), nil); err != nil {
			t.Errorf("%s: %v", agent, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		says string
	}{
		"good": {"pw\n", 0o600, ""}, "dos": {"pw\r\n", 0o400, ""}, "shared": {"pw", 0o640, "chmod 600"}, "empty": {"\n", 0o600, "no value"},
		"lines": {"pw\naction=on", 0o600, "one line"}, "spaces": {" pw", 0o600, "spaces"}, "long": {strings.Repeat("x", 5000), 0o600, "4096"},
		"quoted": {`"pw"`, 0o600, "quotation"}, "binary": {"pw\xff", 0o600, "text"},
	} {
		path := filepath.Join(dir, name)
		write(t, path, test.text, test.mode)
		got, err := readSecret(path)
		if test.says == "" && (err != nil || got != "pw") || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecret(fifo); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a FIFO: %v", err)
	}
	d := Device{Agent: "fence_ipmilan", SecretFiles: map[string]string{"password": filepath.Join(dir, "nosuch")}}
	if err := d.Off(t.Context(), nil); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, ErrAgent) {
		t.Errorf("no secret file: %v", err)
	}
}

func TestParseDevice(t *testing.T) {
	d, err := ParseDevice([]byte("agent: fence_ipmilan\noptions: {ip: 192.0.2.1, lanplus: 1, username: admin, password_script: /bin/pw}\n" +
		"secret_files: {password: /etc/vmctl/ipmi}\ntimeout: 90s\ndelay: 15s\n"))
	if err != nil || d.Options["lanplus"] != "1" || d.Timeout != 90*time.Second || d.Delay != 15*time.Second || d.SecretFiles["password"] != "/etc/vmctl/ipmi" {
		t.Errorf("got %+v, %v", d, err)
	}
	for text, says := range map[string]string{
		"agent: fence_x\nagnet: y":                                     "agnet",
		"agent: ipmilan":                                               "give a name",
		"agent: 'fence_x; reboot'":                                     "give a name",
		"agent: fence_x\ntimeout: 90":                                  "line 2",
		"agent: fence_x\ntimeout: 1ms":                                 "timeout",
		"agent: fence_x\ndelay: -1s":                                   "delay",
		"agent: fence_x\noptions: {action: on}":                        "action is given",
		"agent: fence_x\noptions: {Action: on}":                        "action is given",
		"agent: fence_x\noptions: {delay: 3}":                          "set delay",
		"agent: fence_x\noptions: {passwd: x}":                         "secret_files",
		"agent: fence_x\noptions: {snmp-priv-passwd: x}":               "secret_files",
		"agent: fence_x\noptions: {plug: \"1\\naction=on\"}":           "one line",
		"agent: fence_x\noptions: {plug: }":                            "no value",
		"agent: fence_x\noptions: {plug: ' 1'}":                        "spaces",
		"agent: fence_x\noptions: {'plug=1 action': x}":                "letters",
		"agent: fence_x\noptions: {plug: [1, 2]}":                      "line 2",
		"agent: fence_x\noptions: {a-b: 1, a_b: 2}":                    "twice",
		"agent: fence_x\nsecret_files: {password: secret}":             "absolute",
		"agent: fence_x\noptions: {plug: x}\nsecret_files: {plug: /s}": "twice",
		"agent: fence_x\n---\nagent: fence_y":                          "more than one",
		"":                                                             "read the fence device",
	} {
		if _, err := ParseDevice([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

// FuzzParseDevice: what is accepted cannot write a line of its own.
func FuzzParseDevice(f *testing.F) {
	f.Add([]byte("agent: fence_ipmilan\noptions: {ip: 192.0.2.1}\nsecret_files: {password: /s}\ntimeout: 5s\ndelay: 1m"))
	f.Add([]byte("agent: fence_x\noptions: {plug: \"1\\u2028action=on\"}"))
	f.Add([]byte("agent: &a fence_x\noptions: {plug: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDevice(data)
		if err != nil {
			return
		}
		for name, value := range d.Options {
			if len(strings.Fields(name)) != 1 || strings.ContainsAny(name, "=#") || strings.ContainsAny(value, "\r\n\x00") || plainName(name) == "action" {
				t.Errorf("option %q=%q", name, value)
			}
		}
		if d.timeout() < MinTimeout || d.timeout() > MaxTimeout || d.Delay < 0 {
			t.Errorf("%+v", d)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte("warning\n<?xml version=\"1.0\" ?><resource-agent><parameters><parameter name=\"ip\"/></parameters><actions><action name=\"off\"/></actions></resource-agent>"))
	f.Add([]byte("<a><b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(data)
		if err == nil && m.allows(Device{}) == nil && !(strings.Contains(string(data), "off") || strings.Contains(string(data), "&#")) {
			t.Errorf("allowed: %q", data)
		}
	})
}
