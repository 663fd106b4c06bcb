package accel

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Values of Result.Accel, as QEMU spells them.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// Bound is how long a trial may take. Where KVM works it takes 0.3 s.
const Bound = 3 * time.Second

// Result is the accelerator that works on this host.
type Result struct {
	Accel string `json:"accel"` // KVM or TCG
	// Reason says, in a sentence without a full stop, what was found.
	Reason string `json:"reason"`

	// unsure: another run on a quieter host may find otherwise.
	unsure bool
}

// Prove tries KVM with a guest of its own. qemu and firmware are paths, as guests
// use them. A result of TCG is logged as a warning. The error is that of ctx, or
// that QEMU could not be started; the result is then TCG all the same.
func Prove(ctx context.Context, qemu, firmware string, log *slog.Logger) (Result, error) {
	r, err := prove(ctx, trial{qemu: qemu, firmware: firmware, accel: KVM, cpu: "max", cpus: 2, bound: Bound}, "/dev/kvm")
	if err != nil {
		return Result{Accel: TCG, Reason: err.Error(), unsure: true}, err
	}
	r.report(log)
	return r, nil
}

func (r Result) report(log *slog.Logger) {
	if r.Accel == KVM {
		log.Info("guests run on the CPU itself, by KVM", "reason", r.Reason)
		return
	}
	log.Warn("guests run slowly, by translation (TCG): KVM does not work on this host", "reason", r.Reason)
}

func prove(ctx context.Context, t trial, device string) (Result, error) {
	if reason := deviceFault(device); reason != "" {
		return Result{Accel: TCG, Reason: reason, unsure: true}, nil
	}
	started := time.Now()
	o, err := t.run(ctx, guestImage)
	if err != nil {
		return Result{}, err
	}
	reason := o.fault(t.bound)
	if reason == "" {
		return Result{Accel: KVM, Reason: fmt.Sprintf("a test guest ran to its end in %d ms", time.Since(started).Milliseconds())}, nil
	}
	if !hardware() {
		reason += "; the CPU shows neither vmx nor svm here, so KVM has no hardware to run a guest's kernel on"
	}
	// A guest that got less than half of a CPU may have been slow for the host's
	// other work. One that waits for an interrupt in vain looks the same.
	return Result{Accel: TCG, Reason: reason, unsure: o.late && o.cpuTime < t.bound/2}, nil
}

// deviceFault says why the device cannot even be tried.
func deviceFault(device string) string {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const getAPIVersion = 0xae00
	if version, err := unix.IoctlRetInt(int(f.Fd()), getAPIVersion); err != nil || version != 12 {
		return fmt.Sprintf("%s does not speak KVM's API 12 (it says %d, %v)", device, version, err)
	}
	return ""
}

// fault says what was wrong; empty: nothing.
func (o *outcome) fault(bound time.Duration) string {
	at := ", when " + o.doing()
	if o.message != "" && !o.late {
		at += ": " + o.message
	}
	switch {
	case o.wrong:
		return "a test guest got a wrong result from KVM" + at
	case o.gaveUp:
		return "KVM gave up on a test guest" + at
	case o.ended:
		return ""
	case o.late && o.chunks > 1:
		return fmt.Sprintf("a test guest under KVM did not end within %v%s, about %d million a second, which is slower than TCG",
			bound, at, int64(float64(o.chunks-1)*chunkInstructions/1e6/max(o.chunked.Seconds(), 1e-6)))
	case o.late:
		return fmt.Sprintf("a test guest under KVM did not end within %v%s", bound, at)
	}
	return "QEMU with KVM ended early (" + o.status + ")" + at
}

// hardware reports whether this host's CPU shows hardware virtualization.
func hardware() bool {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return true // unknown: say nothing about it
	}
	for line := range bytes.Lines(data) {
		if name, flags, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(name) == "flags" {
			words := " " + strings.TrimSpace(flags) + " "
			return strings.Contains(words, " vmx ") || strings.Contains(words, " svm ")
		}
	}
	return true
}
