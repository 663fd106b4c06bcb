package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"vmctl/node/api"
	"vmctl/node/fence"
	"vmctl/node/notify"
	"vmctl/node/systemd"
	"vmctl/vm"
)

// Config is how an agent was started. The YAML file has the words of the flags.
type Config struct {
	Name       string `yaml:"name"`
	StateDir   string `yaml:"state-dir"`
	RuntimeDir string `yaml:"runtime-dir"`
	RAMDir     string `yaml:"ram-dir"`   // tmpfs that holds guests' memory
	Listen     string `yaml:"listen"`    // for the peer; empty: no cluster possible
	Advertise  string `yaml:"advertise"` // the address told to the peer, if not Listen
	Accel      string `yaml:"accel"`
	// Fence switches the other node off; nil: this node has no device for that.
	Fence    *fence.Device `yaml:"fence"`
	Watchdog string        `yaml:"watchdog"` // device that resets this host; empty: never
	// GuestMemory bounds what guests and replicas may take, such as 6G; empty: all
	// that the host has.
	GuestMemory string `yaml:"guest-memory"`
	// MemoryReserve is left free of the host's memory, see headroom.Budget; empty: a twentieth.
	MemoryReserve string `yaml:"memory-reserve"`

	Notify notify.Config `yaml:"notify"` // who hears of events and alarms

	// ShutdownTimeout bounds how long guests are handed over or stopped when the
	// node is shut down; 0: two minutes.
	ShutdownTimeout time.Duration `yaml:"shutdown-timeout"`

	// Disks that a former owner wrote last are kept when it becomes a standby:
	// the newest KeptCopies of a guest (a number, or all; empty: 2), and any for
	// KeptFor (0: a week).
	KeptCopies string        `yaml:"kept-copies"`
	KeptFor    time.Duration `yaml:"kept-for"`

	Version string       `yaml:"-"`
	Log     *slog.Logger `yaml:"-"`
	Host    HostPower    `yaml:"-"` // nil: this host's systemd, if it has one
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// fieldError is how the YAML decoder speaks of a word that it does not know.
var fieldError = regexp.MustCompile(`field (\S+) not found in type \S+`)

// ReadConfig reads a config file over c: what the file says wins over defaults,
// the caller's flags over the file.
func ReadConfig(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, api.Errorf(api.Usage, "read the config file: %v", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, api.Errorf(api.Usage, "read the config file %s: %s", path, fieldError.ReplaceAllString(err.Error(), `unknown word "$1"`)).
			WithHint("Its words are those of `vmctl node run --help` and of the example /etc/vmctl/vmctl.yaml.")
	}
	return c, nil
}

// check completes c and refuses what cannot work.
func (c *Config) check() error {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return api.Errorf(api.Usage, "find this node's name: %v", err).WithHint("Give one with --name.")
		}
		c.Name = host
	}
	if !nodeName.MatchString(c.Name) {
		return api.Errorf(api.Usage, "node name %q: use lower-case letters, digits, '-' and '.', 63 at most", c.Name).
			WithHint("Give one with --name, or as `name` in the config file.")
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	for flag, addr := range map[string]string{"listen": c.Listen, "advertise": c.Advertise} {
		if err := checkAddr(addr); addr != "" && err != nil {
			return api.Errorf(api.Usage, "--%s: %v", flag, err)
		}
	}
	if c.Fence != nil {
		if err := c.Fence.Check(); err != nil {
			return api.Errorf(api.Usage, "the config file's fence: %v", err)
		}
	}
	if c.Watchdog != "" && !filepath.IsAbs(c.Watchdog) {
		return api.Errorf(api.Usage, "--watchdog %q: give the device's path, such as /dev/watchdog", c.Watchdog)
	}
	if err := c.Notify.Check(); err != nil {
		return api.Errorf(api.Usage, "%v", err)
	}
	if c.RAMDir == "" {
		c.RAMDir = filepath.Join("/dev/shm", "vmctl-"+c.Name)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Host == nil {
		c.Host = systemd.New(c.Log)
	}
	if c.ShutdownTimeout < 0 || c.ShutdownTimeout > time.Hour {
		return api.Errorf(api.Usage, "shutdown-timeout %v: use up to an hour", c.ShutdownTimeout)
	}
	if _, err := c.keptPolicy(); err != nil {
		return api.Errorf(api.Usage, "%v", err)
	}
	for flag, dir := range map[string]*string{"state-dir": &c.StateDir, "runtime-dir": &c.RuntimeDir, "ram-dir": &c.RAMDir} {
		absolute, err := filepath.Abs(*dir)
		if err != nil || *dir == "" {
			return api.Errorf(api.Usage, "--%s %q is no directory", flag, *dir)
		}
		*dir = absolute
	}
	// The longest sockets are the guests'.
	if err := vm.NewLayout(c.StateDir, c.RuntimeDir, c.RAMDir, strings.Repeat("x", 36)).Check(); err != nil {
		return api.Errorf(api.Usage, "--runtime-dir: %v", err)
	}
	return nil
}

// checkAddr says what is wrong with an address that people gave.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || number == 0 {
		return fmt.Errorf("%q is not ADDR:PORT with a port of 1 to 65535", addr)
	}
	return nil
}

// makeDir makes the directory that a flag names, for root only.
func makeDir(flag, dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return api.Errorf(api.Failed, "start the agent: make --%s: %v", flag, err).WithHint("Run it as root.")
	}
	if err != nil {
		return api.Errorf(api.Failed, "start the agent: make --%s: %v", flag, err).WithHint("Give another directory with --%s, or as `%s` in the config file.", flag, flag)
	}
	return nil
}

// Socket is where the API listens.
func (c *Config) Socket() string { return filepath.Join(c.RuntimeDir, "vmctl.sock") }
