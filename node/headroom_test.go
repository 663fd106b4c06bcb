package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/snapshot"
	"vmctl/vm"
	"vmctl/vm/headroom"
)

// TestImageLeavesRoomForGuests: the room of a replica's image is what is free without
// what the guests that run here, and other replicas, may still write.
func TestImageLeavesRoomForGuests(t *testing.T) {
	n := &Node{config: Config{Name: "a", RAMDir: t.TempDir()}, budget: headroom.NewBudget(0)}
	n.guests = newGuests(n)
	add := func(id string, size vm.Size, level string) *guest {
		g := &guest{n: n, id: id, owner: "b", layout: vm.NewLayout("/s", "/r", n.config.RAMDir, id),
			record: guestRecord{Spec: vm.Spec{Name: id, Memory: size, Protection: vm.Protection{Level: level}}}}
		n.guests.byID[id] = g
		return g
	}
	asked := add("asked", 100*vm.MiB, vm.ProtectResume)
	asked.standby = &snapshot.Standby{}
	runs := add("runs", 50*vm.MiB, vm.ProtectNone)
	runs.owner, runs.machine = "a", &machine{}
	if err := os.MkdirAll(filepath.Dir(runs.layout.RAM()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(runs.layout.RAM(), make([]byte, 10*vm.MiB), 0o600); err != nil {
		t.Fatal(err)
	}
	other := add("other", 30*vm.MiB, vm.ProtectResume)
	other.standby, other.status.image = &snapshot.Standby{}, int64(25*vm.MiB)
	disks := add("disks", 1000*vm.MiB, vm.ProtectRestart)
	disks.standby = &snapshot.Standby{}
	stopped := add("stopped", 1000*vm.MiB, vm.ProtectNone)
	stopped.owner = "a"
	if got, want := n.guests.promised(asked), int64((40+5)*vm.MiB); got != want {
		t.Errorf("%d bytes are promised, want %d", got, want)
	}
	n.budget.Look(time.Now(), 7, nil)
	if got := asked.roomForImage(); got != 7 {
		t.Errorf("room %d of the host's 7", got)
	}
}
