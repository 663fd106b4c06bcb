package watchdog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is an armed watchdog. Its methods are called by one goroutine.
type Device interface {
	Timeout() time.Duration
	// CanDisarm is false for one that resets the host once nobody feeds it, whatever
	// it is told.
	CanDisarm() bool
	Feed() error
	// Disarm closes it so that it does not fire. Without CanDisarm it is not called.
	Disarm() error
}

// device is the kernel's.
type device struct {
	file    *os.File
	timeout time.Duration
	magic   bool
}

// timeouts are tried in turn, in seconds: the shorter the better.
var timeouts = []int{1, 2, 3, 4, 5, 10, 15, 30, 60}

// Open arms the watchdog at path with the shortest timeout it takes.
func Open(path string) (Device, error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0) // this arms it
	if err != nil {
		return nil, fmt.Errorf("open the watchdog: %w", err)
	}
	fd := int(file.Fd())
	for _, seconds := range timeouts {
		if err = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, seconds); err == nil {
			break
		}
	}
	taken, getErr := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	if getErr != nil || taken <= 0 {
		d := &device{file: file}
		_ = d.Disarm()
		return nil, fmt.Errorf("open the watchdog: %s does not tell its timeout (%v, %v): is it a watchdog?", path, err, getErr)
	}
	return &device{file: file, timeout: time.Duration(taken) * time.Second, magic: !Look(path).NoWayOut}, nil
}

func (d *device) Timeout() time.Duration { return d.timeout }

func (d *device) CanDisarm() bool { return d.magic }

func (d *device) Feed() error {
	if err := unix.IoctlWatchdogKeepalive(int(d.file.Fd())); err != nil {
		return fmt.Errorf("feed the watchdog: %w", err)
	}
	return nil
}

func (d *device) Disarm() error {
	_, err := d.file.WriteString("V")
	if closeErr := d.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("disarm the watchdog: %w", err)
	}
	return nil
}

// Sight is what can be seen of a watchdog without arming it.
type Sight struct {
	Identity string // of the driver; empty: unknown
	Active   bool   // somebody has armed it
	NoWayOut bool   // once armed it cannot be disarmed
}

// Look reads what sysfs says of the watchdog at path.
func Look(path string) Sight {
	var s Sight
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return s
	}
	dir := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	if _, err := os.Stat(filepath.Join(dir, "identity")); err != nil {
		dir = "/sys/class/watchdog/watchdog0" // what /dev/watchdog stands for
	}
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(data))
	}
	s.Identity, s.Active, s.NoWayOut = read("identity"), read("state") == "active", read("nowayout") == "1"
	return s
}
