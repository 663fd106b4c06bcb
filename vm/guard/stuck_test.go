package guard

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

// TestEndStuck ends a guard that is stopped and would never freeze its QEMU.
func TestEndStuck(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	status := b.status()
	if err := syscall.Kill(status.GuardPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	bound, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Attach(bound, b.launch.ConfigPath); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("attach to a stopped guard: %v", err)
	}
	if err := EndStuck(t.Context(), b.launch.ConfigPath); err != nil {
		t.Fatal(err)
	}
	if alive(status.PID) {
		t.Error("QEMU runs on")
	}
	if _, err := Attach(t.Context(), b.launch.ConfigPath); !errors.Is(err, ErrGone) {
		t.Errorf("attach afterwards: %v", err)
	}
	if err := EndStuck(t.Context(), b.launch.ConfigPath); !errors.Is(err, ErrGone) {
		t.Errorf("end it again: %v", err)
	}
	if err := EndStuck(t.Context(), b.launch.ConfigPath+".none"); !errors.Is(err, ErrNoGuard) {
		t.Errorf("end what never was: %v", err)
	}
}
