package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config lists the targets: "notify:" of the agent's config file. It has no
// decoder of its own, so that the strictness of the file's holds for it too.
type Config []Target

// Target is one of webhook, exec and syslog.
type Target struct {
	Webhook    string `yaml:"webhook"`     // URL, http or https
	SecretFile string `yaml:"secret_file"` // of the webhook's signature; none: unsigned
	CAFile     string `yaml:"ca_file"`     // PEM; trusted instead of the system's authorities

	Exec string `yaml:"exec"` // absolute path of a program

	Syslog bool `yaml:"syslog"`

	// Least is the severity below which plain events are not told: info (the
	// default: everything), warning or alarm. Both ends of alarms always are.
	Least string `yaml:"least"`

	Timeout time.Duration `yaml:"timeout"` // of one delivery; 0: DefaultTimeout
}

// Bounds of a delivery's time, and of the number of targets.
const (
	DefaultTimeout = 10 * time.Second
	MaxTimeout     = 5 * time.Minute
	mostTargets    = 32
)

// ParseConfig reads targets from one strict YAML document and checks them.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read notify: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("read notify: more than one document")
	}
	return c, c.Check()
}

// Check says what is wrong with c by itself; it opens no file.
func (c Config) Check() error {
	if len(c) > mostTargets {
		return fmt.Errorf("notify: %d targets, %d are the most", len(c), mostTargets)
	}
	for i, t := range c {
		if err := t.check(); err != nil {
			return fmt.Errorf("notify: target %d: %w", i+1, err)
		}
	}
	return nil
}

func (t Target) check() error {
	kinds := 0
	for _, given := range []bool{t.Webhook != "", t.Exec != "", t.Syslog} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("give one of webhook, exec and syslog")
	}
	if t.Timeout < 0 || t.Timeout > MaxTimeout {
		return fmt.Errorf("timeout %v: use up to %v", t.Timeout, MaxTimeout)
	}
	if t.Least != "" && t.Least != Info && t.Least != Warning && t.Least != Alarm {
		return fmt.Errorf("least %q: it is info, warning or alarm", t.Least)
	}
	if t.Webhook == "" && (t.SecretFile != "" || t.CAFile != "") {
		return errors.New("secret_file and ca_file belong to a webhook")
	}
	for _, path := range []string{t.SecretFile, t.CAFile, t.Exec} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%q is not an absolute path", path)
		}
	}
	if t.Webhook == "" {
		return nil
	}
	// The URL is not repeated: many have a secret in them.
	target, err := url.Parse(t.Webhook)
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Hostname() == "" {
		return errors.New("webhook: give an absolute URL that begins with https:// or http://")
	}
	if target.Scheme == "http" && t.CAFile != "" {
		return errors.New("ca_file needs a webhook with https://")
	}
	return nil
}

func (t Target) timeout() time.Duration {
	if t.Timeout == 0 {
		return DefaultTimeout
	}
	return t.Timeout
}
