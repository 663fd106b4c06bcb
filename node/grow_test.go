package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/vm"
	"vmctl/vm/qmp"
	"vmctl/vm/qmp/qmptest"
)

const kib = 1 << 10

// replicaOn is node a with a replica of b's guest, epoch 4, whose disks d0 and d1
// have 8 and 16 KiB of sevens.
func replicaOn(t *testing.T) (*desk, *guest) {
	t.Helper()
	d, g := keeper(t, "b")
	g.n.config.RAMDir = t.TempDir()
	g.epoch = 4
	g.here = placeRecord{Replica: true, Prepared: 4, BootID: "before", Disks: sizesOf(8*kib, 16*kib)}
	for _, disk := range g.here.Disks {
		if err := os.WriteFile(g.replicaDisk(disk.Name), bytes.Repeat([]byte{7}, int(disk.Size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(g.closeStandby)
	return d, g
}

func sizesOf(sizes ...int64) (list []diskSize) {
	for i, size := range sizes {
		list = append(list, diskSize{Name: fmt.Sprintf("d%d", i), Size: size})
	}
	return list
}

// content checks that the replica's disks have these sizes, what they had, and
// nothing behind that, and that this is on record.
func (g *guest) content(t *testing.T, what string, sizes ...int64) {
	t.Helper()
	for i, size := range sizes {
		raw, err := os.ReadFile(g.replicaDisk(fmt.Sprintf("d%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		had := []int{8 * kib, 16 * kib}[i]
		if int64(len(raw)) != size || bytes.Count(raw, []byte{7}) != had || bytes.Count(raw[:had], []byte{7}) != had || bytes.Count(raw, []byte{0}) != len(raw)-had {
			t.Errorf("%s: d%d has %d bytes, want %d; %d of what it had", what, i, len(raw), size, bytes.Count(raw, []byte{7}))
		}
	}
	if g.here.Was != nil || !sameSizes(g.here.Disks, sizesOf(sizes...)) {
		t.Errorf("%s: on record are %v, before %v", what, g.here.Disks, g.here.Was)
	}
}

func sameSizes(a, b []diskSize) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestReplicaGrows: an owner with larger disks gets the replica that is there, as
// large; asked to grow only, a node does no more than that.
func TestReplicaGrows(t *testing.T) {
	_, g := replicaOn(t)
	ctx := t.Context()
	grow := openRequest{Epoch: 4, Disks: sizesOf(12*kib, 16*kib), Grow: true}
	if _, err := g.prepare(ctx, "b", grow); err != nil {
		t.Fatal(err)
	}
	g.content(t, "grown only", 12*kib, 16*kib)
	if g.here.BootID != "before" { // what was not flushed before a boot of this host would count
		t.Errorf("it is joined, at boot %q", g.here.BootID)
	}
	if _, err := g.prepare(ctx, "b", grow); err != nil || g.here.BootID != "before" {
		t.Errorf("again: %v, boot %q", err, g.here.BootID)
	}
	standby, err := g.prepare(ctx, "b", openRequest{Epoch: 4, Disks: sizesOf(12*kib, 32*kib)})
	if err != nil {
		t.Fatal(err)
	}
	g.content(t, "grown and joined", 12*kib, 32*kib)
	if g.here.BootID != bootID() || g.here.Prepared != 4 || !g.here.Replica || standby != g.standby {
		t.Errorf("the place is %+v", g.here)
	}
	for what, request := range map[string]openRequest{
		"a smaller disk": {Epoch: 4, Disks: sizesOf(12*kib, 16*kib), Grow: true},
		"another disk":   {Epoch: 4, Disks: []diskSize{{"d0", 64 * kib}, {"x", 64 * kib}}, Grow: true},
		"one disk":       {Epoch: 4, Disks: sizesOf(64 * kib), Grow: true},
		"no replica":     {Epoch: 4, Disks: sizesOf(64*kib, 64*kib), Grow: true},
	} {
		if what == "no replica" {
			g.here.Prepared = 3
		}
		var refused *wire.Refused
		if _, err := g.prepare(ctx, "b", request); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	g.here.Prepared = 4
	g.content(t, "after refusals", 12*kib, 32*kib)
}

// TestReplicaGrowsAfterACrash: the power was cut when some of the disks were larger.
// Whoever opens the replica makes the rest so; a disk of any other size is damage.
func TestReplicaGrowsAfterACrash(t *testing.T) {
	_, g := replicaOn(t)
	g.here.Was, g.here.Disks = g.here.Disks, sizesOf(12*kib, 32*kib)
	if err := os.Truncate(g.replicaDisk("d1"), 32*kib); err != nil {
		t.Fatal(err)
	}
	if _, err := g.openStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.content(t, "opened", 12*kib, 32*kib)
	g.closeStandby()
	if err := os.Truncate(g.replicaDisk("d0"), 8*kib); err != nil { // not by us
		t.Fatal(err)
	}
	if _, err := g.openStandby(t.Context()); err == nil || !strings.Contains(err.Error(), "another size") {
		t.Errorf("a disk that was cut off is opened: %v", err)
	}
}

// sized is a guest of this node, replica outdated, in a QEMU that says how large its
// disks are, and makes them larger.
type sized struct {
	*guest
	*desk
	m *machine

	qemu   sync.Mutex // of what follows
	is     []int64
	resize []int64 // what QEMU was asked for
	fail   error
}

func newSized(t *testing.T, disks ...vm.Disk) *sized {
	t.Helper()
	d, g := keeper(t, "a")
	s := &sized{guest: g, desk: d, m: &machine{Guest: &vm.Guest{}, epoch: 1}}
	g.detached, g.machine, g.deadline = true, s.m, 1<<62
	g.record.Spec.Disks = disks
	g.record.Spec.Protection.Level = vm.ProtectNone
	for _, disk := range disks {
		if err := os.WriteFile(g.layout.Disk(disk, false).Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.is = append(s.is, int64(vm.MiB))
	}
	server := qmptest.StartMachine(t, "running")
	server.Handle("query-named-block-nodes", func(*qmptest.Call) (any, error) {
		s.qemu.Lock()
		defer s.qemu.Unlock()
		var nodes []any
		for i, size := range s.is {
			nodes = append(nodes, map[string]any{"node-name": topNode(i), "image": map[string]any{"virtual-size": size}})
		}
		return nodes, nil
	})
	server.Handle("block_resize", func(call *qmptest.Call) (any, error) {
		var args struct {
			Node string `json:"node-name"`
			Size int64
		}
		s.qemu.Lock()
		defer s.qemu.Unlock()
		if err := call.Decode(&args); err != nil || s.fail != nil {
			return nil, errors.Join(err, s.fail)
		}
		var i int
		_, err := fmt.Sscanf(args.Node, "top%d", &i)
		s.is[i], s.resize = args.Size, append(s.resize, args.Size)
		return nil, err
	})
	client, err := qmp.Dial(t.Context(), server.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s.m.monitor = client
	return s
}

// set makes the first disk so large, and QEMU fail to make it larger.
func (s *sized) set(size vm.Size, fail error) {
	s.qemu.Lock()
	defer s.qemu.Unlock()
	s.is[0], s.fail = int64(size), fail
}

// TestSizesAgree: after whatever came between, the larger of what the spec says and
// what the disk is stands, and nothing is made smaller.
func TestSizesAgree(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for name, test := range map[string]struct {
		disk      vm.Disk
		is        vm.Size
		fail      error
		spec, got vm.Size // afterwards
	}{
		"they agree":                {vm.Disk{Size: 2 * vm.MiB}, 2 * vm.MiB, nil, 2 * vm.MiB, 2 * vm.MiB},
		"cut before the spec":       {vm.Disk{Size: 1 * vm.MiB}, 2 * vm.MiB, nil, 2 * vm.MiB, 2 * vm.MiB},
		"a copy that had not grown": {vm.Disk{Size: 3 * vm.MiB}, 2 * vm.MiB, nil, 3 * vm.MiB, 3 * vm.MiB},
		"QEMU refuses":              {vm.Disk{Size: 3 * vm.MiB}, 2 * vm.MiB, errors.New("no"), 3 * vm.MiB, 2 * vm.MiB},
		"of an image":               {vm.Disk{Image: "/i"}, 2 * vm.MiB, nil, 0, 2 * vm.MiB},
		"a file that exists":        {vm.Disk{Path: outside}, 2 * vm.MiB, nil, 0, 2 * vm.MiB},
	} {
		test.disk.Name, test.disk.Format = "d0", vm.FormatRaw
		s := newSized(t, test.disk)
		s.set(test.is, test.fail)
		s.agreeOnSizes(t.Context(), s.m)
		if got := s.spec().Disks[0].Size; got != test.spec || s.is[0] != int64(test.got) {
			t.Errorf("%s: the spec says %v, want %v; the disk has %v, want %v", name, got, test.spec, vm.Size(s.is[0]), test.got)
		}
	}
}

// TestGrowsBetweenProtectors: what a user asks for is done by the goroutine that
// protects the guest, and what cannot be done changes nothing.
func TestGrowsBetweenProtectors(t *testing.T) {
	s := newSized(t, vm.Disk{Name: "d0", Size: vm.MiB, Format: vm.FormatRaw})
	old := s.record.Spec.Disks
	stop := start(t.Context(), func(ctx context.Context) { s.keepProtected(ctx, s.m) })
	if err := s.growRunning(t.Context(), s.m, 0, int64(4*vm.MiB)); err != nil {
		t.Fatal(err)
	}
	if s.spec().Disks[0].Size != 4*vm.MiB || s.is[0] != int64(4*vm.MiB) || old[0].Size != vm.MiB {
		t.Errorf("the spec says %v, it was %v, the disk has %v", s.spec().Disks[0].Size, old[0].Size, vm.Size(s.is[0]))
	}
	if err := s.growRunning(t.Context(), s.m, 0, int64(2*vm.MiB)); err == nil || len(s.resize) != 1 {
		t.Errorf("a smaller disk: %v, QEMU was asked for %v", err, s.resize)
	}
	s.set(4*vm.MiB, errors.New("the file system says no"))
	if err := s.growRunning(t.Context(), s.m, 0, int64(8*vm.MiB)); err == nil || !strings.Contains(err.Error(), "says no") || s.spec().Disks[0].Size != 4*vm.MiB {
		t.Errorf("QEMU refuses: %v, the spec says %v", err, s.spec().Disks[0].Size)
	}
	stop()
	// Nobody takes it: it is withdrawn.
	bound, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.growRunning(bound, s.m, 0, int64(8*vm.MiB)); !errors.Is(err, context.DeadlineExceeded) || s.growing != nil {
		t.Errorf("nobody takes it: %v, left is %v", err, s.growing)
	}
}

// An outdated replica comes before a larger disk: while it cannot be outdated QEMU
// is not asked.
func TestOutdatedBeforeItGrows(t *testing.T) {
	s := newSized(t, vm.Disk{Name: "d0", Size: vm.MiB, Format: vm.FormatRaw})
	s.detached = false // and no core answers
	bound, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.growNow(bound, s.m, 0, int64(4*vm.MiB)); err == nil || len(s.resize) != 0 || s.spec().Disks[0].Size != vm.MiB {
		t.Errorf("%v, QEMU was asked for %v", err, s.resize)
	}
}

// TestGrowthAskedOfAnEarlierVersion: a peer that says nothing of growing would take
// the request for an ordinary one, and refuse the larger disks for good.
func TestGrowthAskedOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	_, g := replicaOn(t)
	n := g.n
	n.members = &membership{self: "a", record: clusterRecord{Members: []memberInfo{{Name: "a"}, {Name: "b"}}}, identity: &peer.Identity{}}
	g.record.Spec.Disks = []vm.Disk{{Name: "d0", Format: vm.FormatRaw}}
	for _, c := range []struct {
		grows bool
		level string
		says  string
	}{
		{grows: false, level: vm.ProtectResume, says: "earlier version"},
		{grows: false, level: vm.ProtectNone},
		{grows: true, level: vm.ProtectRestart},
	} {
		g.record.Spec.Protection.Level = c.level
		n.exchange.theirs, n.exchange.number = nodeInfo{Grows: c.grows, Room: 1 << 40}, 1
		_, err := n.admitGrowth(t.Context(), g, 0, kib, true)
		var refused *api.Error
		if c.says == "" && err != nil || c.says != "" && (!errors.As(err, &refused) || refused.Code != api.Conflict || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c, err)
		}
		if c.grows {
			continue
		}
		if err := g.growPeers(t.Context(), sizesOf(16*kib, 16*kib)); err == nil || !strings.Contains(err.Error(), "does not know how") {
			t.Errorf("%+v: asked to grow: %v", c, err)
		}
	}
}
