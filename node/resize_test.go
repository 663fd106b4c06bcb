package node_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/disk"
)

// TestResizeStopped makes disks of a guest that does not run larger, from the other
// node too; what is refused changes nothing.
func TestResizeStopped(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := a.Create(ctx, fmt.Appendf(nil, "{name: web, memory: 64M, protection: {level: resume}, disks: [{name: r, size: 10M, format: raw}, {name: q, size: 10M, format: qcow2}, {name: o, path: %s, format: raw}, {name: p, size: 2M, format: raw, preallocate: true}]}", outside))
	if err != nil {
		t.Fatal(err)
	}
	disks := filepath.Join(a.config.StateDir, "guests", v.UUID, "disks")
	paths := map[string]string{"r": filepath.Join(disks, "r.raw"), "q": filepath.Join(disks, "q.qcow2"), "o": outside, "p": filepath.Join(disks, "p.raw")}
	for _, step := range []struct {
		on         *agent
		disk, size string
		force      bool
		code       api.Code // empty: it is done
		say        string
		is, spec   vm.Size // afterwards
	}{
		{a, "r", "20M", false, "", "", 20 * vm.MiB, 20 * vm.MiB},
		{a, "r", "20M", false, "", "", 20 * vm.MiB, 20 * vm.MiB},
		{b, "q", "+6M", false, "", "", 16 * vm.MiB, 16 * vm.MiB},
		{a, "o", "3M", false, "", "", 3 * vm.MiB, 0},
		{a, "p", "4M", false, "", "", 4 * vm.MiB, 4 * vm.MiB},
		{a, "r", "19M", false, api.Conflict, "only grows", 20 * vm.MiB, 20 * vm.MiB},
		{a, "r", "900T", false, api.Unsafe, "free", 20 * vm.MiB, 20 * vm.MiB},
		{a, "r", "+1", false, api.Usage, "multiple of 512", 20 * vm.MiB, 20 * vm.MiB},
		{a, "r", "much", false, api.Usage, "much", 20 * vm.MiB, 20 * vm.MiB},
		{a, "q", "1T", true, "", "", 1 * vm.TiB, 1 * vm.TiB},
	} {
		what := fmt.Sprintf("resize %s to %s", step.disk, step.size)
		client := *step.on.Client
		client.Force = step.force
		v, err := client.ResizeDisk(ctx, "web", step.disk, step.size)
		switch {
		case step.code != "":
			want(t, what, err, step.code, step.say)
		case err != nil:
			t.Errorf("%s: %v", what, err)
		case step.force != (len(v.Warnings) > 0):
			t.Errorf("%s: warnings %q", what, v.Warnings)
		}
		info, err := (disk.Tool{}).Info(ctx, paths[step.disk])
		if err != nil || info.VirtualSize != int64(step.is) {
			t.Errorf("%s: it has %d bytes, want %d, %v", what, info.VirtualSize, step.is, err)
		}
		for _, n := range []*agent{a, b} {
			if said := n.specSize(t, "web", step.disk); said != step.spec {
				t.Errorf("%s: on %s the spec says %v, want %v", what, n.config.Name, said, step.spec)
			}
		}
	}
	if info, err := (disk.Tool{}).Info(ctx, paths["p"]); err != nil || info.ActualSize < 4<<20 {
		t.Errorf("the preallocated one takes %d bytes, %v", info.ActualSize, err)
	}
	want(t, "no such disk", of(a.ResizeDisk(ctx, "web", "x", "1G")), api.NotFound, "r, q, o, p")
	want(t, "no such guest", of(a.ResizeDisk(ctx, "db", "r", "1G")), api.NotFound, "vm ls")
	b.stop()
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && !cluster.Members[1].Reachable
	})
	if _, err := a.ResizeDisk(ctx, "web", "r", "+1M"); err != nil || a.specSize(t, "web", "r") != 21*vm.MiB {
		t.Errorf("without the peer: %v", err)
	}
	b = run(t, b.config)
	eventually(t, "the peer to hear of it", func() bool { return b.specSize(t, "web", "r") == 21*vm.MiB })
	if kinds := strings.Join(a.eventKinds(t), " "); !strings.Contains(kinds, "disk-resized") || !strings.Contains(kinds, "overcommitted") {
		t.Errorf("events: %s", kinds)
	}
}

// specSize is how large the node's spec of a guest says that a disk is.
func (a *agent) specSize(t *testing.T, name, diskName string) vm.Size {
	t.Helper()
	v, err := a.VM(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v.Spec)
	if err != nil {
		t.Fatal(err)
	}
	var spec vm.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	for _, d := range spec.Disks {
		if d.Name == diskName {
			return d.Size
		}
	}
	t.Fatalf("%s has no disk %s", name, diskName)
	return 0
}
