package fence

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// agent is a device ready to be asked.
type agent struct {
	device Device
	path   string
	log    *slog.Logger
	limit  time.Duration // of one call
}

// directories is where agents are installed.
var directories = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"}

// prepare finds the agent and makes sure that it can do what is asked of it.
func (d Device) prepare(ctx context.Context, log *slog.Logger) (*agent, error) {
	if err := d.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAgent, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	path, err := findAgent(d.Agent)
	if err != nil {
		return nil, err
	}
	if _, err := d.readSecrets(); err != nil { // found out before a shot is lost
		return nil, fmt.Errorf("%w: %w", ErrAgent, err)
	}
	a := &agent{device: d, path: path, log: log.With("agent", d.Agent), limit: d.timeout() / 2}
	ctx, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	r, err := run(ctx, path, []byte("action=metadata\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: ask %s for its metadata: %w", ErrAgent, d.Agent, err)
	}
	m, err := parseMetadata(r.stdout.kept.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %s gave no metadata (exit code %d): %w; is it a fence agent?", ErrAgent, d.Agent, r.code, err)
	}
	if err := m.allows(d); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAgent, d.Agent, err)
	}
	return a, nil
}

func findAgent(name string) (string, error) {
	if filepath.IsAbs(name) {
		if _, err := exec.LookPath(name); err != nil {
			return "", fmt.Errorf("%w: find the fence agent: %w", ErrAgent, err)
		}
		return name, nil
	}
	for _, directory := range directories {
		if path, err := exec.LookPath(filepath.Join(directory, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: %s is not installed; install the package fence-agents", ErrAgent, name)
}

// metadata is what an agent says of itself (resource-agent XML).
type metadata struct {
	Parameters []struct {
		Name string `xml:"name,attr"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name string `xml:"name,attr"`
	} `xml:"actions>action"`
}

func parseMetadata(data []byte) (metadata, error) {
	var m metadata
	// Some agents' libraries write warnings first.
	if i := bytes.Index(data, []byte("<?xml")); i > 0 {
		data = data[i:]
	}
	if err := xml.NewDecoder(bytes.NewReader(data)).Decode(&m); err != nil {
		return metadata{}, fmt.Errorf("read the metadata: %w", err)
	}
	if len(m.Actions) == 0 {
		return metadata{}, errors.New("read the metadata: it names no actions")
	}
	return m, nil
}

// allows says why an agent with this metadata cannot fence with d.
func (m metadata) allows(d Device) error {
	actions, parameters := map[string]bool{}, map[string]bool{"nodename": true}
	for _, a := range m.Actions {
		actions[a.Name] = true
	}
	for _, p := range m.Parameters {
		parameters[plainName(p.Name)] = true
	}
	switch {
	case !actions["off"]:
		return errors.New("it cannot power off")
	case !actions["status"]:
		return errors.New("it cannot say whether a node is off; use an agent with a status action")
	case !actions["reboot"]:
		return errors.New("it cuts a node from shared storage and leaves it running; use an agent that switches power")
	}
	for _, options := range []map[string]string{d.Options, d.SecretFiles} {
		for _, name := range sortedKeys(options) {
			if !parameters[plainName(name)] {
				return fmt.Errorf("it has no option %q and would ignore it; see: man %s", name, filepath.Base(d.Agent))
			}
		}
	}
	return nil
}

// ask runs one action, bounded by the limit of a call. The string is what the
// agent printed last, without secrets.
func (a *agent) ask(ctx context.Context, action string) (*result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	input := "action=" + action + "\n"
	for _, name := range sortedKeys(a.device.Options) {
		input += name + "=" + a.device.Options[name] + "\n"
	}
	secrets, err := a.device.readSecrets()
	if err != nil {
		return nil, "", err
	}
	for name, secret := range secrets {
		input += name + "=" + secret + "\n"
	}
	began := time.Now()
	r, err := run(ctx, a.path, []byte(input))
	redact := newRedactor(slices.Collect(maps.Values(secrets)))
	stdout, stderr := redact.clean(r.stdout.kept.String(), r.stdout.cut), redact.clean(r.stderr.kept.String(), r.stderr.cut)
	attributes := []any{"action", action, "took", time.Since(began).Round(time.Millisecond), "stdout", brief(stdout, 1000), "stderr", brief(stderr, 2000)}
	if err != nil {
		a.log.Warn("fence agent failed", append(attributes, "error", err)...)
		return r, "", err
	}
	a.log.Info("fence agent answered", append(attributes, "code", r.code)...)
	return r, lastLine(stderr, stdout), nil
}

func lastLine(texts ...string) string {
	for _, text := range texts {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if last := brief(lines[len(lines)-1], 200); last != "" {
			return last
		}
	}
	return "no output"
}

var (
	saysOn  = regexp.MustCompile(`(?im)^\s*status:\s*on\s*$`)
	saysOff = regexp.MustCompile(`(?im)^\s*status:\s*off\s*$`)
)

// power is what a status answer means. Off must be said twice, by the exit code
// and in words; everything that is not clear is Unknown.
func (r *result) power() Power {
	on, off := saysOn.Match(r.stdout.kept.Bytes()), saysOff.Match(r.stdout.kept.Bytes())
	switch {
	case r.stdout.cut || on && off:
		return Unknown
	case r.code == 2 && off:
		return Off
	case r.code == 0 && !off:
		return On
	}
	return Unknown
}
