package accel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ProveOnce is Prove, remembered in the file path until the host boots again or
// its kernel, KVM modules, QEMU or firmware change. That the file cannot be read
// or written only costs another trial.
func ProveOnce(ctx context.Context, path, qemu, firmware string, log *slog.Logger) (Result, error) {
	return once(path, identify(ctx, qemu, firmware), log, func() (Result, error) {
		return Prove(ctx, qemu, firmware, log)
	})
}

// subject is everything that a verdict is about.
type subject struct {
	BootID   string   `json:"boot_id"`
	Kernel   string   `json:"kernel"`
	Modules  []string `json:"modules"`
	QEMU     string   `json:"qemu"`     // path and what it says of its version
	Firmware string   `json:"firmware"` // path, size and time
	Guest    string   `json:"guest"`    // hash of the test guest
}

// memory is the content of the file.
type memory struct {
	Subject subject `json:"subject"`
	Result
}

func once(path string, s subject, log *slog.Logger, prove func() (Result, error)) (Result, error) {
	if r, ok := recall(path, s); ok && deviceFault("/dev/kvm") == "" {
		r.report(log)
		return r, nil
	}
	r, err := prove()
	if err != nil || r.unsure {
		return r, err
	}
	if err := remember(path, memory{Subject: s, Result: r}); err != nil {
		log.Warn("the accelerator will be tried again at the next start", "error", err)
	}
	return r, nil
}

func identify(ctx context.Context, qemu, firmware string) subject {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	hash := sha256.Sum256(guestImage)
	s := subject{
		BootID: strings.TrimSpace(string(boot)), QEMU: qemu, Firmware: firmware, Guest: hex.EncodeToString(hash[:8]),
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
	}
	s.Modules, _ = filepath.Glob("/sys/module/kvm*")
	bounded, cancel := context.WithTimeout(ctx, Bound)
	defer cancel()
	if out, err := exec.CommandContext(bounded, qemu, "--version").Output(); err == nil {
		version, _, _ := strings.Cut(string(out), "\n")
		s.QEMU += " " + version
	}
	if info, err := os.Stat(firmware); err == nil {
		s.Firmware += fmt.Sprintf(" %d %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
	}
	return s
}

func (s subject) equal(t subject) bool {
	return s.BootID != "" && s.BootID == t.BootID && s.Kernel == t.Kernel && slices.Equal(s.Modules, t.Modules) &&
		s.QEMU == t.QEMU && s.Firmware == t.Firmware && s.Guest == t.Guest
}

func recall(path string, s subject) (Result, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Result{}, false
	}
	var m memory
	if json.Unmarshal(data, &m) != nil || !m.Subject.equal(s) || (m.Accel != KVM && m.Accel != TCG) {
		return Result{}, false
	}
	return m.Result, true
}

// remember replaces the file in one step. Power cuts need no care: another boot
// asks anew.
func remember(path string, m memory) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the verdict on KVM: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("keep the verdict on KVM: %w", err)
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("keep the verdict on KVM: %w", err)
	}
	return nil
}
