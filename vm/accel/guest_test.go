package accel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const (
	realQEMU     = "qemu-system-x86_64"
	realFirmware = "/usr/share/seabios/bios-256k.bin"
	patience     = time.Minute // the machine may be busy
)

func tcg() trial {
	return trial{qemu: realQEMU, firmware: realFirmware, accel: TCG, cpu: "max", cpus: 2, bound: patience}
}

// The guest itself is right: it comes to its end on QEMU's own translator. So it
// is KVM's fault where it does not.
func TestGuestEndsUnderTCG(t *testing.T) {
	t.Parallel()
	o, err := tcg().run(t.Context(), guestImage)
	if err != nil {
		t.Fatal(err)
	}
	if fault := o.fault(patience); fault != "" || !o.ended || o.chunks != 64 {
		t.Errorf("got %+v, %q; want an end after 64 chunks", o, fault)
	}
	t.Logf("64 chunks in %v, CPU time in all %v", o.chunked, o.cpuTime)
}

// Each of these machines lacks one thing the guest is there to find out.
func TestGuestFindsFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*trial)
		stage  byte
		wrong  bool
	}{
		{"no long mode", func(x *trial) { x.cpu = "qemu32" }, 'R', false},
		{"no cmpxchg16b", func(x *trial) { x.cpu = "max,cx16=off" }, 'C', true},
		{"no second CPU", func(x *trial) { x.cpus = 1 }, 'S', true},
		{"no APIC", func(x *trial) { x.cpu = "max,apic=off"; x.cpus = 1 }, 'C', true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x := tcg()
			test.change(&x)
			o, err := x.run(t.Context(), guestImage)
			if err != nil {
				t.Fatal(err)
			}
			if o.stage != test.stage || o.wrong != test.wrong || o.fault(x.bound) == "" {
				t.Errorf("got %+v, %q; want stage %c, wrong %v", o, o.fault(x.bound), test.stage, test.wrong)
			}
		})
	}
}

// The bytes in the binary are those of the listing.
func TestGuestMatchesSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	object, linked, image := filepath.Join(dir, "o"), filepath.Join(dir, "elf"), filepath.Join(dir, "bin")
	for _, line := range [][]string{
		{"as", "-o", object, "guest/guest.S"},
		{"ld", "-Ttext", "0", "-e", "0", "-o", linked, object},
		{"objcopy", "-O", "binary", "-j", ".text", linked, image},
	} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", line, err, out)
		}
	}
	built, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(built, guestImage) {
		t.Error("guest.bin is not what guest.S assembles to: build it anew as guest.S says")
	}
}
