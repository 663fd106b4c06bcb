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
	if bytes.Equal(s.identity.Value(), second) {
		t.Error("known after it was taken over")
	}
	must(s.Close())
	must(os.Remove(filepath.Join(dir, "disks", "d.raw")))
	third := s.identity.Value()
	if bytes.Equal(says(open("3")), third) {
		t.Error("known with an image made anew")
	}
}
