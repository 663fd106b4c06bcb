package replica

import (
	"errors"
	"path/filepath"
	"testing"

	"vmctl/snapshot/memory"

	"vmctl/node/wire"
)

// Checkpoints that are begun and never end leave no marks behind; a late end of
// one of them is refused, and the one before can still be resumed.
func TestAbandonedCheckpoints(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 6, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	first, _ := src.mustCheckpoint()
	begin := func(n uint64) *staged {
		s, err := r.stage(t.Context(), Begin{Epoch: 3, Sequence: n, Root: n, RAMSize: ramPages * memory.PageSize})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var early *staged
	for n := first + 1; n < first+20; n++ {
		src.disks.at(t, n)
		s := begin(n)
		if n == first+10 {
			early = s
		} else if err := s.discard(); err != nil {
			t.Fatal(err)
		}
		marks, err := filepath.Glob(filepath.Join(src.disks.dir, "mark-*"))
		if err != nil || len(marks) > 3 {
			t.Fatalf("marks %v, %v", marks, err)
		}
	}
	src.disks.at(t, first+10) // as if it were still there
	end := &End{Epoch: 3, Sequence: first + 10, Checksum: memory.NewDigest().Sum(), BlobSum: emptySum}
	if err := r.commit(t.Context(), early, end); !errors.Is(err, ErrUsed) {
		t.Errorf("a checkpoint that was passed over: %v", err)
	}
	if err := early.discard(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got := verify(t, cfg, src.instants, 4); got != first {
		t.Errorf("holds %d, want %d", got, first)
	}
}

// A fence between the last part of a checkpoint and its end: the end is of an
// epoch that is over, and nothing is committed.
func TestFenceBeforeTheEnd(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 15, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	l, _ := src.attach(r)
	n, _ := src.mustCheckpoint()
	l.alter = func(kind wire.Kind, _ any) {
		if kind != KindEnd {
			return
		}
		if err := r.Fence(t.Context(), 9); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := src.checkpoint(); !errors.Is(err, ErrStale) {
		t.Errorf("committed behind a fence: %v", err)
	}
	if s := mustStatus(t, r); s.Sequence != n || s.Floor != 9 {
		t.Errorf("the replica is at %d, floor %d", s.Sequence, s.Floor)
	}
}
