package snapshot

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// A replica is known again after a boot of its host only if it was closed before,
// and never after it was taken over.
func TestReplicaIsKnownAgain(t *testing.T) {
	dir := t.TempDir()
	open := func(boot string) *Standby {
		t.Helper()
		s, err := OpenStandby(t.Context(), StandbyConfig{
			UUID: "g", Epoch: 1, Dir: filepath.Join(dir, "replica"), RAMDir: filepath.Join(dir, "ram"), BootID: boot,
			Disks: []DiskImage{{Name: "d", Path: filepath.Join(dir, "disks", "d.raw"), Size: 1 << 20}}, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	says := func(s *Standby) []byte {
		t.Helper()
		peer, err := s.Says()
		if err != nil || len(peer.Replica) == 0 {
			t.Fatalf("%+v %v", peer, err)
		}
		return peer.Replica
	}
	die := func(s *Standby) { // as a killed agent does
		if err := errors.Join(s.replica.Close(), s.closeDisks()); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := open("1")
	first := says(s)
	die(s)
	s = open("1")
	if !bytes.Equal(says(s), first) {
		t.Error("not known after a kill of the agent")
	}
	_ = says(s) // more than one stream
	must(s.Close())
	s = open("2")
	if !bytes.Equal(says(s), first) {
		t.Error("not known after a shutdown of the host")
	}
	die(s)
	s = open("3")
	second := says(s)
	if bytes.Equal(second, first) {
		t.Error("known after a power cut")
	}
	must(s.TakeOverDisks(t.Context(), 2))
	if _, err := s.identity.Wake(); err != nil || bytes.Equal(s.identity.Value(), second) {
		t.Error("known after it was taken over")
	}
	must(s.Close())
	must(os.Remove(filepath.Join(dir, "disks", "d.raw")))
	third := s.identity.Value()
	if bytes.Equal(says(open("3")), third) {
		t.Error("known with an image made anew")
	}
}

// Checkpoint after checkpoint that comes to nothing is told once, and again only
// after one was committed.
func TestFoldIsNotedOnce(t *testing.T) {
	dir := t.TempDir()
	var noted []string
	s, err := OpenStandby(t.Context(), StandbyConfig{
		UUID: "g", Epoch: 1, Dir: filepath.Join(dir, "replica"), RAMDir: filepath.Join(dir, "ram"),
		Disks: []DiskImage{{Name: "d", Path: filepath.Join(dir, "d.raw"), Size: 1 << 20}, {Name: "e", Path: filepath.Join(dir, "e.raw"), Size: 1 << 20}},
		Noted: func(kind, text string) { noted = append(noted, kind) }, Log: slog.New(slog.DiscardHandler),
	})
	check(t, err)
	defer s.Close()
	disks := (*standbyDisks)(s)
	begin := func(committed, sequence uint64) {
		t.Helper()
		check(t, disks.Fold(committed, sequence))
		for _, disk := range s.disks {
			check(t, disk.Mark(sequence))
			_, err := disk.WriteAt([]byte{byte(sequence)}, int64(sequence)*4096)
			check(t, err)
		}
	}
	begin(0, 1)
	begin(1, 2)
	if len(noted) != 0 {
		t.Errorf("noted %v, and nothing was folded", noted)
	}
	begin(1, 3)
	begin(1, 4)
	begin(1, 5)
	if len(noted) != 1 || noted[0] != "undo-folded" {
		t.Errorf("noted %v", noted)
	}
	check(t, disks.Drop(5))
	begin(5, 6)
	begin(5, 7)
	begin(5, 8)
	if len(noted) != 2 {
		t.Errorf("after a commit: noted %v", noted)
	}
	for name, disk := range s.disks {
		if marks := disk.Marks(); len(marks) > 3 {
			t.Errorf("disk %s keeps markers %v", name, marks)
		}
	}
}
