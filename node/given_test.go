package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vmctl/vm"
)

// gaveAway is when the former owner gave the guest away.
var gaveAway = time.Date(2026, 11, 26, 14, 53, 35, 0, time.UTC)

// formerOwner is node a, which gave b's guest away at that moment, with disks as in
// replicaOn.
func formerOwner(t *testing.T) *guest {
	_, g := replicaOn(t)
	g.here = placeRecord{Epoch: 3, Left: &moment{3, 77}, LeftAt: gaveAway}
	g.record.Spec.Disks = []vm.Disk{{Name: "d0", Format: vm.FormatRaw}, {Name: "d1", Format: vm.FormatRaw}}
	return g
}

// had says whether a file has the sevens of formerOwner.
func had(t *testing.T, dir string) bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "d1.raw"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Contains(raw, []byte{7})
}

// TestGivenDisksBecomeTheReplica: a guest that was handed over leaves its replica's
// disks behind; anything else keeps what may be nowhere else.
func TestGivenDisksBecomeTheReplica(t *testing.T) {
	from, sizes := &moment{3, 77}, sizesOf(8*kib, 16*kib)
	for what, c := range map[string]struct {
		change func(*guest)
		from   *moment
		sizes  []diskSize
		keeps  bool
	}{
		"handed over":                            {from: from},
		"again a replica's disks":                {from: from, change: func(g *guest) { g.here.Replica, g.record.Spec.Disks[0].Format = true, vm.FormatQcow2 }},
		"an owner of the version before":         {keeps: true},
		"resumed from the checkpoint before":     {from: &moment{3, 76}, keeps: true},
		"booted, not resumed":                    {from: &moment{3, 0}, keeps: true},
		"taken over in another epoch":            {from: &moment{2, 77}, keeps: true},
		"lost to a failover":                     {from: from, change: func(g *guest) { g.here.Left = nil }, keeps: true},
		"run here since":                         {from: from, change: func(g *guest) { g.here.Epoch = 5 }, keeps: true},
		"another format":                         {from: from, change: func(g *guest) { g.record.Spec.Disks[1].Format = vm.FormatQcow2 }, keeps: true},
		"a disk outside":                         {from: from, change: func(g *guest) { g.record.Spec.Disks[0].Path = "/dev/null" }, keeps: true},
		"a disk that grew":                       {from: from, sizes: sizesOf(8*kib, 32*kib), keeps: true},
		"a disk of another name":                 {from: from, sizes: []diskSize{{"d0", 8 * kib}, {"x", 16 * kib}}, keeps: true},
		"a disk whose place is another's":        {from: from, change: func(g *guest) { g.link(t) }, keeps: true},
		"disks that nobody took out of the spec": {from: from, sizes: sizesOf(8 * kib)},
	} {
		t.Run(what, func(t *testing.T) {
			g := formerOwner(t)
			if c.change != nil {
				c.change(g)
			}
			if c.sizes == nil {
				c.sizes = sizes
			}
			kept := filepath.Join(g.layout.State, keptPrefix+map[bool]string{true: "5", false: "3"}[g.here.Epoch == 5])
			if err := os.RemoveAll(kept); err != nil {
				t.Fatal(err)
			}
			standby, err := g.prepare(t.Context(), "b", openRequest{Epoch: 4, Disks: c.sizes, From: c.from})
			if err != nil {
				t.Fatal(err)
			}
			if had(t, kept) != c.keeps || had(t, g.layout.Disks()) == c.keeps {
				t.Errorf("kept: %t, in the replica: %t", had(t, kept), had(t, g.layout.Disks()))
			}
			if content := standby.Content(); content.Whole == c.keeps || content.Held || content.Whole && !content.Time.Equal(gaveAway) {
				t.Errorf("its content is %+v", content)
			}
			if g.here.Left != nil || g.here.Epoch != 0 || g.here.Prepared != 4 || g.here.From != nil {
				t.Errorf("the place is %+v", g.here)
			}
		})
	}
}

// link puts a link where the second disk was.
func (g *guest) link(t *testing.T) {
	path := g.replicaDisk("d1")
	elsewhere := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.Rename(path, elsewhere), os.Symlink(elsewhere, path)); err != nil {
		t.Fatal(err)
	}
}

// TestGivenDisksAreWholeOnce: an agent that is killed before it has said that the
// disks are whole says so at its next start, and never again: an owner may have
// written to them since.
func TestGivenDisksAreWholeOnce(t *testing.T) {
	g := formerOwner(t)
	g.here = placeRecord{Replica: true, Prepared: 4, Left: g.here.Left, LeftAt: gaveAway, BootID: bootID(), Disks: sizesOf(8*kib, 16*kib)}
	for _, whole := range []bool{true, false} {
		standby, err := g.openStandby(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if standby.Content().Whole != whole || g.here.Left != nil {
			t.Errorf("whole: %t, want %t; the place is %+v", standby.Content().Whole, whole, g.here)
		}
		g.closeStandby()
		if err := os.RemoveAll(g.replicaDir()); err != nil { // as one that was torn, and lost its file
			t.Fatal(err)
		}
	}
}

// TestLeftIsOfTheSameDisks: when the new owner has made a replica of the place
// already, what is written there is his.
func TestLeftIsOfTheSameDisks(t *testing.T) {
	g := formerOwner(t)
	g.here.Left = nil
	g.left(moment{3, 78})
	if g.here.Left == nil || *g.here.Left != (moment{3, 78}) {
		t.Fatalf("the place is %+v", g.here)
	}
	g.here = placeRecord{Replica: true, Prepared: 4}
	g.left(moment{3, 79})
	if g.here.Left != nil {
		t.Errorf("the place is %+v", g.here)
	}
	if err := os.Remove(g.replicaDisk("d0")); err != nil {
		t.Fatal(err)
	}
	g.here = placeRecord{Epoch: 3}
	g.left(moment{3, 80})
	if g.here.Left != nil {
		t.Errorf("what could not be made durable was left: %+v", g.here)
	}
}

// TestBootedDisksGoOnFromTheReplicas: what was shut down on the peer has no
// checkpoint.
func TestBootedDisksGoOnFromTheReplicas(t *testing.T) {
	d, g := replicaOn(t)
	g.here.Left = &moment{2, 9}
	if _, err := g.openStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.takeDisks(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	d.journal.flush()
	if d.told == nil || !slices.Contains(d.told, "web/disks-unflushed") {
		t.Errorf("told was %q", d.told)
	}
	if g.here.From == nil || *g.here.From != (moment{4, 0}) || g.here.Left != nil || g.here.Epoch != 5 {
		t.Errorf("the place is %+v", g.here)
	}
}

// TestDisksOfThisBoot: what this host wrote since it was started is there, flushed
// or not.
func TestDisksOfThisBoot(t *testing.T) {
	d, g := replicaOn(t)
	g.here.BootID = bootID()
	if err := g.takeDisks(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	d.journal.flush()
	if len(d.told) != 0 {
		t.Errorf("told was %q", d.told)
	}
}
