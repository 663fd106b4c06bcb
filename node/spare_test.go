package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/ha"
	"vmctl/snapshot"
	"vmctl/vm"
)

// A standby is good only for the hardware and the very files it was started with.
func TestMisfit(t *testing.T) {
	spec := vm.Spec{Name: "web", CPUs: 1, Memory: 128 * vm.MiB}
	other := spec
	other.CPUs = 2
	unlike := spec // in what makes no other machine
	unlike.Standby, unlike.Isolation = new(bool), vm.IsolationStop
	tests := map[string]struct {
		spec   vm.Spec
		ram    string
		change func(disk string) error
		says   string
	}{
		"fits":          {unlike, "ram", nil, ""},
		"hardware":      {other, "ram", nil, "hardware"},
		"full image":    {spec, "ram2", nil, "another memory"},
		"disk grown":    {spec, "ram", func(disk string) error { return os.Truncate(disk, 8192) }, "another file"},
		"disk gone":     {spec, "ram", os.Remove, "another file"},
		"QEMU upgraded": {spec, "ram", func(disk string) error { return os.Rename(disk+".new", filepath.Join(filepath.Dir(disk), "qemu")) }, "another file"},
		"disk replaced": {spec, "ram", func(disk string) error { return os.Rename(disk+".new", disk) }, "another file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			for _, file := range []string{"ram", "ram2", "disk", "disk.new", "qemu"} {
				if err := os.WriteFile(path(file), make([]byte, 4096), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := newSpare(spec, []string{path("ram"), path("disk"), path("qemu")})
			if err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				if err := test.change(path("disk")); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.misfit(test.spec, path(test.ram)); (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
				t.Errorf("%q", got)
			}
		})
	}
}

// A node hears that it owns a guest before it hears that it is to take it over:
// what a takeover needs must not be ended in between.
func TestOwnerAwaitsWord(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel() // whoever would wait fails
	words := map[string]func(*guest){
		"a takeover": func(g *guest) { g.takeOver(ha.TakeOver{Epoch: 2, Deadline: 1}) },
		"a lease":    func(g *guest) { g.renew(ha.Renew{Epoch: 2, Deadline: 1}) },
		"no replica": func(g *guest) { g.standby = nil },
	}
	for name, word := range words {
		log := slog.New(slog.DiscardHandler)
		g := newGuest(&Node{log: log}, "u", guestRecord{}, placeRecord{})
		g.standby = &snapshot.Standby{}
		g.place("a", 2)
		if g.awaitWord(over) == nil {
			t.Errorf("%s: not waited for", name)
		}
		word(g)
		if err := g.awaitWord(over); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
