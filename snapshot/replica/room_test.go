package replica

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"vmctl/snapshot/memory"
)

const ramBytes = ramPages * memory.PageSize

// crowded is a replica that holds a checkpoint, with room for so many bytes more.
func crowded(t *testing.T, room *int64) (Config, *source, *Replica, *[]string) {
	t.Helper()
	cfg, noted := peerIn(t, t.TempDir()), &[]string{}
	cfg.Room = func() int64 { return *room }
	cfg.Noted = func(kind, _ string) { *noted = append(*noted, kind) }
	src := newSource(t, 31, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	src.mustCheckpoint()
	return cfg, src, r, noted
}

// next sends a checkpoint of which the owner says that the replica counts, or not.
func (s *source) next(outdated bool) (uint64, Sent, error) {
	s.t.Helper()
	s.scribble(s.churn)
	out := s.pause()
	out.Outdated = outdated
	sent, err := s.sender.Send(context.Background(), out)
	return out.Sequence, sent, err
}

// TestOneImageAtATime: a new image of the guest's memory that has no room beside the
// one that is here takes its place if that does not count, and only then.
func TestOneImageAtATime(t *testing.T) {
	for name, c := range map[string]struct {
		room     int64
		outdated bool
		gives    bool
		want     error
	}{
		"room for both":               {room: ramBytes, outdated: true},
		"room for one":                {room: 45 * memory.PageSize, outdated: true, gives: true},
		"room for one, and it counts": {room: memory.PageSize, want: ErrNoRoom},
		"this host is short":          {room: -1, outdated: true, gives: true, want: ErrNoRoom},
		"it is short, and it counts":  {room: -1, want: ErrNoRoom},
	} {
		t.Run(name, func(t *testing.T) {
			room := int64(ramBytes)
			cfg, src, r, noted := crowded(t, &room)
			held := mustStatus(t, r)
			src.restart() // a new agent: all of the memory comes anew
			room = c.room
			l, _ := dial(r)
			ready, err := src.sender.Attach(t.Context(), l)
			if want := max(1, c.room+held.Bytes); err != nil || ready.Room != want {
				t.Errorf("room for an image: %d, want %d, %v", ready.Room, want, err)
			}
			n, sent, err := src.next(c.outdated)
			if !errors.Is(err, c.want) || err == nil && !sent.Full {
				t.Errorf("%v, full %t; want %v", err, sent.Full, c.want)
			}
			status := mustStatus(t, r)
			if lost := status.Sequence == held.Sequence && !status.Complete; lost != (c.gives && c.want != nil) || (len(*noted) > 0) != c.gives {
				t.Errorf("%+v, noted %q", status, *noted)
			}
			if c.want == nil && (status.Sequence != n || !status.Complete) {
				t.Errorf("%+v, not checkpoint %d", status, n)
			}
			room = ramBytes
			src.attach(r)
			if n, _, err = src.next(true); err != nil {
				t.Fatalf("with room again: %v", err)
			}
			_ = r.Close()
			if got := verify(t, cfg, src.instants, 4); got != n {
				t.Errorf("holds %d, not %d", got, n)
			}
		})
	}
}

// TestShortOfMemory: what is here goes, for this host's sake, only when its owner
// knows that it does not count any more.
func TestShortOfMemory(t *testing.T) {
	room := int64(ramBytes)
	cfg, src, r, noted := crowded(t, &room)
	held := mustStatus(t, r)
	room = -1
	if _, _, err := src.next(false); !errors.Is(err, ErrNoRoom) || len(*noted) > 0 {
		t.Errorf("%v, noted %q", err, *noted)
	}
	if s := mustStatus(t, r); s != held {
		t.Errorf("%+v, was %+v", s, held)
	}
	if _, _, err := src.next(true); !errors.Is(err, ErrNoRoom) || len(*noted) != 1 {
		t.Errorf("%v, noted %q", err, *noted)
	}
	if s := mustStatus(t, r); s.Memory || s.Complete || s.Sequence != held.Sequence {
		t.Errorf("%+v", s)
	}
	files, err := os.ReadDir(cfg.RAMDir)
	if err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := r.TakeOver(t.Context(), 4); !errors.Is(err, ErrMemoryAbsent) {
		t.Errorf("taken over: %v", err)
	}
}

// TestMemoryEndsInAnImage: what an image takes cannot be known beforehand. The one that
// is here goes when memory ends in the middle of a new one, if it does not count.
func TestMemoryEndsInAnImage(t *testing.T) {
	for _, outdated := range []bool{true, false} {
		room, full := int64(ramBytes), false
		cfg, src, r, noted := crowded(t, &room)
		held := mustStatus(t, r)
		r.files.before = func(change, path string) error {
			if full && change == "page" && !strings.Contains(held.RAMPath, path) {
				if _, err := os.Stat(held.RAMPath); err == nil {
					return syscall.ENOSPC // as long as the other one is there
				}
			}
			return nil
		}
		full = true
		src.restart()
		src.attach(r)
		if _, _, err := src.next(outdated); !errors.Is(err, ErrFailed) {
			t.Errorf("outdated %t: %v", outdated, err)
		}
		if s := mustStatus(t, r); s.Complete == outdated || (len(*noted) == 1) != outdated {
			t.Errorf("outdated %t: %+v, noted %q", outdated, s, *noted)
		}
		n, _, err := src.next(outdated)
		if (err == nil) != outdated {
			t.Errorf("outdated %t, the next one: %v", outdated, err)
		}
		if !outdated {
			n = held.Sequence
		}
		_ = r.Close()
		if got := verify(t, cfg, src.instants, 4); got != n {
			t.Errorf("outdated %t: holds %d, not %d", outdated, got, n)
		}
	}
}
