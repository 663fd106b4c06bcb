package notify

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte("- {webhook: 'https://example.com/x', secret_file: /s, ca_file: /c, timeout: 5s}\n- exec: /usr/local/bin/page\n- syslog: true\n"))
	if err != nil || len(c) != 3 || c[0].Timeout != 5*time.Second || c[1].timeout() != DefaultTimeout || !c[2].Syslog {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := ParseConfig(nil); err != nil || len(c) != 0 {
		t.Errorf("nothing: %+v, %v", c, err)
	}
	for text, says := range map[string]string{
		"- {webhok: x}":                 "webhok",
		"- {}":                          "give one of",
		"- {syslog: false}":             "give one of",
		"- {syslog: true, exec: /x}":    "give one of",
		"- syslog: maybe":               "line 1",
		"- exec: page":                  "absolute path",
		"- {exec: /x, secret_file: /s}": "belong to a webhook",
		"- {webhook: 'https://x', secret_file: s}":    "absolute path",
		"- webhook: example.com/hidden":               "https://",
		"- webhook: ftp://example.com/hidden":         "https://",
		"- webhook: 'https://:80/hidden'":             "https://",
		"- webhook: \"https://x/hidden\\n\"":          "https://",
		"- {webhook: 'http://x/hidden', ca_file: /c}": "needs a webhook with https",
		"- {syslog: true, timeout: -1s}":              "timeout",
		"- {syslog: true, timeout: 1h}":               "timeout",
		"- {syslog: true, timeout: 10}":               "line 1",
		"syslog: true":                                "line 1",
		"- syslog: true\n---\n- syslog: true":         "more than one",
		strings.Repeat("- syslog: true\n", 33):        "the most",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

// TestNew: what is missing is found out at the start.
func TestNew(t *testing.T) {
	good := write(t, "hook", "#!/bin/sh\n", 0o755)
	plain := write(t, "plain", "x", 0o600)
	shared := write(t, "shared", "x", 0o644)
	empty := write(t, "empty", "\n", 0o600)
	if _, err := New(Config{{Exec: good}, {Syslog: true}, {Webhook: "https://x", SecretFile: plain}}, silent); err != nil {
		t.Error(err)
	}
	for says, target := range map[string]Target{
		"no such file":       {Exec: good + "x"},
		"chmod +x":           {Exec: plain},
		"is no program":      {Exec: filepath.Dir(good)},
		"chmod 600":          {Webhook: "https://x", SecretFile: shared},
		"is empty":           {Webhook: "https://x", SecretFile: empty},
		"read secret_file":   {Webhook: "https://x", SecretFile: good + "x"},
		"no regular file":    {Webhook: "https://x", SecretFile: "/dev/null"},
		"has no certificate": {Webhook: "https://x", CAFile: plain},
		"read ca_file":       {Webhook: "https://x", CAFile: good + "x"},
		"give one of":        {},
	} {
		if _, err := New(Config{{Syslog: true}, target}, silent); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "target 2") {
			t.Errorf("%+v: %v", target, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("- {webhook: 'https://example.com/x', secret_file: /s, timeout: 5s}\n- exec: /x\n- syslog: true"))
	f.Add([]byte("- &a {syslog: true}\n- *a"))
	f.Add([]byte("- <<: {exec: /x}\n  timeout: 1m"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		for _, target := range c {
			u, err := url.Parse(target.Webhook)
			if err != nil || target.Webhook != "" && u.Host == "" || target.Exec != "" && !filepath.IsAbs(target.Exec) || target.timeout() <= 0 {
				t.Errorf("accepted %+v", target)
			}
			if target.Webhook != "" {
				if _, err := newWebhook(Target{Webhook: target.Webhook}); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
