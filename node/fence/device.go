package fence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

var (
	// ErrAgent: the device or its agent could not be asked, or said that it
	// failed. Nothing is known of the node's power.
	ErrAgent = errors.New("fence agent failed")
	// ErrNotConfirmed: the agent accepted to power the node off, but the device
	// never said that it is off.
	ErrNotConfirmed = errors.New("not confirmed to be off")
)

// Device says how the other node is powered off. The zero Timeout means
// DefaultTimeout.
type Device struct {
	Agent       string            `yaml:"agent"`        // name (fence_...) or absolute path
	Options     map[string]string `yaml:"options"`      // as in the agent's manual page
	SecretFiles map[string]string `yaml:"secret_files"` // option to the file that holds its value
	Timeout     time.Duration     `yaml:"timeout"`      // of the whole attempt, after Delay
	Delay       time.Duration     `yaml:"delay"`        // before the shot: longer than the other node's whole shot, on one node only
}

// Bounds of a Device's times.
const (
	DefaultTimeout = time.Minute
	MinTimeout     = time.Second
	MaxTimeout     = 10 * time.Minute
	MaxDelay       = 5 * time.Minute
)

var (
	agentName  = regexp.MustCompile(`^fence_[A-Za-z0-9_-]+$`)
	optionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)
	// secretName finds options that do not belong into a config file. Those that
	// end in _script or _file name something that holds the secret.
	secretName = regexp.MustCompile(`(?i)(passw|secret|token|api_?key)`)
	notSecret  = regexp.MustCompile(`(?i)_(script|file|path)$`)
)

// reserved are options that this package sets itself.
var reserved = map[string]string{
	"action": "the action is given by vmctl", "option": "the action is given by vmctl", "delay": "set delay of the fence device instead",
}

// ParseDevice reads a device from one strict YAML document and checks it.
func ParseDevice(data []byte) (Device, error) {
	var d Device
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		return Device{}, fmt.Errorf("read the fence device: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Device{}, errors.New("read the fence device: more than one document")
	}
	return d, d.Check()
}

// Check says what is wrong with d by itself; it opens no file and asks nobody.
func (d Device) Check() error {
	if !agentName.MatchString(d.Agent) && !(filepath.IsAbs(d.Agent) && printable(d.Agent)) {
		return fmt.Errorf("fence agent %q: give a name such as fence_ipmilan, or an absolute path", d.Agent)
	}
	if d.Timeout != 0 && (d.Timeout < MinTimeout || d.Timeout > MaxTimeout) {
		return fmt.Errorf("fence timeout %v: use %v to %v", d.Timeout, MinTimeout, MaxTimeout)
	}
	if d.Delay < 0 || d.Delay > MaxDelay {
		return fmt.Errorf("fence delay %v: use 0 to %v", d.Delay, MaxDelay)
	}
	seen := map[string]bool{}
	for _, name := range slices.Concat(sortedKeys(d.Options), sortedKeys(d.SecretFiles)) {
		plain := plainName(name)
		if !optionName.MatchString(name) {
			return fmt.Errorf("fence option %q: a name has letters, digits, '-' and '_'", name)
		}
		if why := reserved[plain]; why != "" {
			return fmt.Errorf("fence option %q: %s", name, why)
		}
		if seen[plain] {
			return fmt.Errorf("fence option %q is given twice", name)
		}
		seen[plain] = true
	}
	for _, name := range sortedKeys(d.Options) {
		if secretName.MatchString(name) && !notSecret.MatchString(plainName(name)) {
			return fmt.Errorf("fence option %q is a secret: put it into a file and name that in secret_files", name)
		}
		if err := checkValue(d.Options[name]); err != nil {
			return fmt.Errorf("fence option %q: %w", name, err)
		}
	}
	for _, name := range sortedKeys(d.SecretFiles) {
		if file := d.SecretFiles[name]; !filepath.IsAbs(file) || !printable(file) {
			return fmt.Errorf("secret_files: the file of %q must be an absolute path", name)
		}
	}
	return nil
}

// checkValue refuses what would not reach an agent as it was written: agents
// read lines, and strip spaces and quotation marks around a value. The error
// does not have the value.
func checkValue(value string) error {
	switch {
	case value == "":
		return errors.New("it has no value")
	case !printable(value):
		return errors.New("a value is one line of text")
	case strings.TrimSpace(value) != value:
		return errors.New("agents strip the spaces around a value")
	case len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"':
		return errors.New("agents strip the quotation marks around a value")
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029'
	})
}

// plainName is an option's name as agents compare it.
func plainName(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
