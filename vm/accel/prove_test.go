package accel

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// On a host whose CPU shows no hardware virtualization KVM cannot run a guest,
// although its device opens. Elsewhere either verdict may be right.
func TestProveOnThisHost(t *testing.T) {
	started := time.Now()
	r, err := Prove(t.Context(), realQEMU, realFirmware, silent())
	took := time.Since(started)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after %v: %s", r.Accel, took, r.Reason)
	if took > Bound+2*time.Second {
		t.Errorf("took %v", took)
	}
	if r.Reason == "" || (r.Accel != KVM && r.Accel != TCG) {
		t.Errorf("got %+v", r)
	}
	if !hardware() && (r.Accel != TCG || !strings.Contains(r.Reason, "vmx")) {
		t.Errorf("KVM without hardware: got %+v", r)
	}
}

func TestVerdictIsRemembered(t *testing.T) {
	firmware := filepath.Join(t.TempDir(), "firmware")
	if err := os.WriteFile(firmware, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "accel.json")
	s := identify(t.Context(), realQEMU, firmware)
	if s.BootID == "" || s.Kernel == "" || len(s.Modules) == 0 || !strings.Contains(s.QEMU, "version") || s.Firmware == firmware {
		t.Fatalf("the subject has gaps: %+v", s)
	}
	verdict, fault := Result{Accel: TCG, Reason: "first"}, error(nil)
	var calls int
	ask := func(s subject) (Result, error) {
		return once(path, s, silent(), func() (Result, error) { calls++; return verdict, fault })
	}
	want := func(what string, s subject, reason string, trials int) {
		t.Helper()
		calls = 0
		r, err := ask(s)
		if !errors.Is(err, fault) || r.Reason != reason || calls != trials {
			t.Errorf("%s: got %+v, %v after %d trials, want %q after %d", what, r, err, calls, reason, trials)
		}
	}
	want("nothing known", s, "first", 1)
	verdict.Reason = "second"
	want("known", s, "first", 0)

	if err := os.WriteFile(firmware, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("other firmware", identify(t.Context(), realQEMU, firmware), "second", 1)
	for name, change := range map[string]func(*subject){
		"other boot":   func(s *subject) { s.BootID = "x" },
		"other kernel": func(s *subject) { s.Kernel = "x" },
		"other module": func(s *subject) { s.Modules = []string{"x"} },
		"other QEMU":   func(s *subject) { s.QEMU = "x" },
		"other guest":  func(s *subject) { s.Guest = "x" },
	} {
		other := s
		change(&other)
		want("as before: "+name, s, "second", 1)
		want(name, other, "second", 1)
	}
	unknown := s
	unknown.BootID = ""
	want("boot unknown", unknown, "second", 1)
	want("boot unknown, again", unknown, "second", 1)

	for _, content := range []string{"", "{", "null", `{"accel":"kvm"}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		want("damaged: "+content, s, "second", 1)
	}
}

// A verdict in doubt, a trial that could not be made and a file that cannot be
// written do not stick.
func TestVerdictIsNotRemembered(t *testing.T) {
	s := identify(t.Context(), realQEMU, realFirmware)
	broken := errors.New("broken")
	for _, test := range []struct {
		name, path string
		result     Result
		err        error
	}{
		{"in doubt", filepath.Join(t.TempDir(), "f"), Result{Accel: TCG, Reason: "late", unsure: true}, nil},
		{"error", filepath.Join(t.TempDir(), "f"), Result{Accel: TCG, Reason: "broken", unsure: true}, broken},
		{"no directory", "/nowhere/f", Result{Accel: KVM, Reason: "good"}, nil},
	} {
		for range 2 {
			calls := 0
			r, err := once(test.path, s, silent(), func() (Result, error) { calls++; return test.result, test.err })
			if calls != 1 || !errors.Is(err, test.err) || r != test.result {
				t.Errorf("%s: got %+v, %v after %d trials", test.name, r, err, calls)
			}
		}
		if left, _ := filepath.Glob(test.path + "*"); len(left) != 0 {
			t.Errorf("%s left %v", test.name, left)
		}
	}
}
