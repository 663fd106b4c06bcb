package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxSocketPath is the kernel's limit on a unix socket's path, less the NUL.
const maxSocketPath = 107

// Guest names the guest in messages and in the systemd unit.
type Guest struct {
	Name string `json:"name"`
	UUID string `json:"uuid"`
}

// Limits are set on QEMU by the guard. nil: leave as inherited.
type Limits struct {
	OOMScoreAdj *int `json:"oom_score_adj,omitempty"` // -1000 to 1000
	Nice        *int `json:"nice,omitempty"`          // -20 to 19
}

// Launch is everything a guard needs to know. It is written to a file only its
// user can read (arguments may hold secrets), and read again to adopt the guard.
type Launch struct {
	ID    string `json:"id"` // tells one start from the next; set by Start if empty
	Guest Guest  `json:"guest"`

	Argv []string `json:"argv"` // of QEMU
	Env  []string `json:"env"`  // nil: the guard's own
	Dir  string   `json:"dir"`  // working directory; empty: /

	ConfigPath string `json:"config_path"` // this file
	LogPath    string `json:"log_path"`    // output of QEMU and guard is appended
	Socket     string `json:"socket"`      // the guard's; at most 107 bytes
	QMPSocket  string `json:"qmp_socket"`  // a monitor of QEMU for the guard alone; empty: no pauses
	ExitPath   string `json:"exit_path"`   // exit record

	Epoch      uint64 `json:"epoch"`
	DeadlineNS int64  `json:"deadline_ns"` // CLOCK_BOOTTIME; Forever: no lease
	// Standby is set for a QEMU that waits with -incoming: it runs no guest yet,
	// and Epoch is only the lowest that Claim may make it the owner's guest under.
	Standby bool `json:"standby,omitempty"`

	// Isolation is what happens to the guest when its lease ends; empty: Freeze.
	// A standby has no lease before Claim.
	Isolation Isolation `json:"isolation,omitempty"`

	Limits Limits `json:"limits"`
	// StopTimeout is the time QEMU gets between SIGTERM and SIGKILL when the guard
	// itself is asked to end by a signal. 0 means 10 s.
	StopTimeout time.Duration `json:"stop_timeout_ns,omitempty"`
}

// Validate says what is wrong with a launch before anything is started.
func (l *Launch) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct{ name, path string }{
		{"config path", l.ConfigPath}, {"log path", l.LogPath},
		{"socket", l.Socket}, {"exit path", l.ExitPath},
	} {
		if !filepath.IsAbs(p.path) {
			bad("%s %q is not an absolute path", p.name, p.path)
		}
	}
	for _, s := range []string{l.Socket, l.QMPSocket} {
		if len(s) > maxSocketPath {
			bad("socket path %q is longer than %d bytes: use a shorter runtime directory", s, maxSocketPath)
		}
	}
	if len(l.Argv) == 0 || l.Argv[0] == "" {
		bad("there is no program to run")
	}
	if !plainWord(l.Guest.UUID) || !plainWord(l.ID) {
		bad("guest uuid %q and launch id %q must be words of at most 64 plain characters", l.Guest.UUID, l.ID)
	}
	if l.DeadlineNS <= 0 {
		bad("deadline %d is not a time", l.DeadlineNS)
	}
	if _, ok := l.Isolation.number(); !ok {
		bad("isolation %q is neither %s nor %s", l.Isolation, Freeze, Stop)
	}
	if l.StopTimeout < 0 {
		bad("stop timeout %v is negative", l.StopTimeout)
	}
	return errors.Join(errs...)
}

func (l *Launch) StopBound() time.Duration {
	if l.StopTimeout == 0 {
		return 10 * time.Second
	}
	return l.StopTimeout
}

// plainWord accepts what can stand in a message and in a unit's name.
func plainWord(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// WriteLaunch writes l to l.ConfigPath: mode 0600, whole or not at all.
func WriteLaunch(l Launch) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("write guard configuration: %w", err)
	}
	if err := writeFile(l.ConfigPath, data, false); err != nil {
		return fmt.Errorf("write guard configuration: %w", err)
	}
	return nil
}

// ReadLaunch reads and checks what WriteLaunch wrote.
func ReadLaunch(path string) (Launch, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Launch{}, fmt.Errorf("read guard configuration: %w", err)
	}
	return decodeLaunch(path, data)
}

func decodeLaunch(path string, data []byte) (Launch, error) {
	var l Launch
	if err := json.Unmarshal(data, &l); err != nil {
		return Launch{}, fmt.Errorf("read guard configuration %s: %w", path, err)
	}
	if err := l.Validate(); err != nil {
		return Launch{}, fmt.Errorf("guard configuration %s: %w", path, err)
	}
	return l, nil
}

// writeFile replaces path by a file of mode 0600 with data in one step. Nobody else
// may write to path: what a kill leaves has one name, which the next one takes over.
func writeFile(path string, data []byte, durable bool) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
