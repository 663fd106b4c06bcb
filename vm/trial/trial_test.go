package trial

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/vm"
)

func place(t *testing.T) Place {
	t.Helper()
	host, err := vm.FindHost(vm.AccelTCG)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	p := Place{Host: host, Runtime: dir, RAMDir: filepath.Join(dir, "ram")}
	t.Cleanup(func() {
		left, err := filepath.Glob(dir + "/*/*")
		more, _ := filepath.Glob(dir + "/t-*")
		if left = append(left, more...); err != nil || len(left) > 0 {
			t.Errorf("trials left %v, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	return p
}

// spec is a guest as others have it.
func spec(p Place) vm.Spec {
	return vm.Spec{
		Name: "till", Memory: 64 * vm.MiB, CPUs: 2, Kernel: "/nowhere/kernel",
		Disks: []vm.Disk{{Path: "/nowhere/root.qcow2", Format: vm.FormatQcow2}, {Name: "data", Preallocate: true}},
		NICs:  []vm.NIC{{Bridge: "br-none"}, {Tap: "mytap"}},
	}.Defaults(p.Host)
}

// TestTrial: what this QEMU saves it loads; other devices or a lesser CPU it
// refuses, with a reason.
func TestTrial(t *testing.T) {
	p := place(t)
	state, err := Save(t.Context(), p, Shape(spec(p)))
	if err != nil {
		t.Fatal(err)
	}
	if len(state.CPU) == 0 || len(state.Devices) < 1000 {
		t.Fatalf("%d words of CPUID, %d bytes of devices", len(state.CPU), len(state.Devices))
	}
	for name, test := range map[string]struct {
		change func(*vm.Spec)
		reason string // none: it loads
	}{
		"the same":        {func(*vm.Spec) {}, ""},
		"another disk":    {func(s *vm.Spec) { s.Disks = s.Disks[:1] }, "0000:00:09.0/virtio-blk"},
		"no rng":          {func(s *vm.Spec) { s.RNG = new(bool) }, "virtio-rng"},
		"a lesser CPU":    {func(s *vm.Spec) { s.CPU = "qemu64" }, "the CPU lacks features"},
		"an unknown CPU":  {func(s *vm.Spec) { s.CPU = "pdp11" }, "unable to find CPU model"},
		"another machine": {func(s *vm.Spec) { s.Machine = "pc-i440fx-7.2" }, "Bus 'pcie.0' not found"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(p)
			test.change(&s)
			began := time.Now()
			err := Load(t.Context(), p, Shape(s), state)
			t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
			if test.reason == "" && err != nil || test.reason != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.reason)) {
				t.Errorf("got %v, want a refusal with %q", err, test.reason)
			}
		})
	}
}

// TestTrialWithScreen: a guest with a screen has a trial of its own.
func TestTrialWithScreen(t *testing.T) {
	p := place(t)
	s := spec(p)
	plain := Key(Shape(s))
	s.Display = vm.DisplayVNC
	if Key(Shape(s)) == plain {
		t.Error("the proof of a guest without a screen counts for one with it")
	}
	state, err := Save(t.Context(), p, Shape(s))
	if err == nil {
		err = Load(t.Context(), p, Shape(s), state)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestNothingFoundOut: what is no fault of QEMU's is no refusal.
func TestNothingFoundOut(t *testing.T) {
	p := place(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Save(gone, p, Shape(spec(p))); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a caller that gave up: %v", err)
	}
	none := p
	none.Host.QEMU = "/nowhere/qemu"
	if _, err := Save(t.Context(), none, Shape(spec(p))); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("no QEMU: %v", err)
	}
	if _, err := Identity("/nowhere/qemu"); err == nil {
		t.Error("no QEMU has an identity")
	}
}

// TestShape: guests of the same hardware share a proof, whatever else differs.
func TestShape(t *testing.T) {
	p := place(t)
	one, two := spec(p), spec(p)
	two.Name, two.Protection.Level, two.Disks[0].Path, two.NICs[0].Bridge = "other", vm.ProtectResume, "/elsewhere", "br1"
	if a, b := Key(Shape(one)), Key(Shape(two)); a != b || a == "" {
		t.Errorf("%s and %s", a, b)
	}
	two.CPUs++
	if Key(Shape(one)) == Key(Shape(two)) {
		t.Error("another number of CPUs shares the proof")
	}
}

func TestCompare(t *testing.T) {
	leaf, other := uint32(0), uint32(1)
	from := []Word{{EAX: 7, ECX: &leaf, Register: "EBX", Features: 0b101}, {EAX: 1, Register: "EBX", Features: 0}}
	for name, test := range map[string]struct {
		to []Word
		ok bool
	}{
		"equal":         {from, true},
		"more":          {[]Word{{EAX: 7, ECX: &leaf, Register: "EBX", Features: 0b111}}, true},
		"less":          {[]Word{{EAX: 7, ECX: &leaf, Register: "EBX", Features: 0b001}}, false},
		"another leaf":  {[]Word{{EAX: 7, ECX: &other, Register: "EBX", Features: 0b111}}, false},
		"another one":   {[]Word{{EAX: 7, ECX: &leaf, Register: "ECX", Features: 0b111}}, false},
		"none is known": {nil, false},
	} {
		if err := Compare(from, test.to); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
