package replica

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
)

// taken is a replica with a story, taken over at checkpoint 5.
func taken(t *testing.T, cfg Config) (*Replica, *source) {
	t.Helper()
	src := newSource(t, 4, 3, cfg.Disks.(testDisks))
	story(t, cfg, src, func(uint64) {})
	r := mustOpen(t, cfg)
	if c, err := r.TakeOver(t.Context(), 7); err != nil || c.Sequence != 5 {
		t.Fatalf("took over %d: %v", c.Sequence, err)
	}
	return r, src
}

// A checkpoint that cannot be loaded is left for the one before it, whole: RAM,
// device state and disks. Then there is none before.
func TestStepBack(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	r, src := taken(t, cfg)
	if disk, err := os.ReadFile(cfg.DiskPaths[0]); err != nil || string(disk) != "after 5" {
		t.Errorf("the newest disk is gone before anything was loaded: %q, %v", disk, err)
	}
	if err := r.StepBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := r.TakeOver(t.Context(), 7)
	if err != nil || c.Sequence != 4 || c.From != 3 || !bytes.Equal(c.Blob, blobOf(4)) {
		t.Fatalf("took over %d of epoch %d: %v", c.Sequence, c.From, err)
	}
	if ram, err := os.ReadFile(c.RAMPath); err != nil || !bytes.Equal(ram, src.instants[4]) {
		t.Errorf("RAM is not that of checkpoint 4: %v", err)
	}
	if err := r.StepBack(t.Context()); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("another step back: %v", err)
	}
	activate(t, r, c)
	files, err := os.ReadDir(cfg.RAMDir)
	if err != nil || len(files) != 1 {
		t.Errorf("left over: %v, %v", files, err)
	}
}

// What is no way back changes nothing.
func TestNoStepBack(t *testing.T) {
	undo := func(r *Replica) string { return r.ramPath(r.rec.Before.Delta) }
	for name, spoil := range map[string]func(*testing.T, Config, *Replica) *Replica{
		"gone": func(t *testing.T, cfg Config, r *Replica) *Replica {
			if err := os.Remove(undo(r)); err != nil {
				t.Fatal(err)
			}
			return r
		},
		"damaged": func(t *testing.T, cfg Config, r *Replica) *Replica {
			data, err := os.ReadFile(undo(r))
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(undo(r), data, 0o600); err != nil {
				t.Fatal(err)
			}
			return r
		},
		"not taken over": func(t *testing.T, cfg Config, r *Replica) *Replica {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			return mustOpen(t, cfg)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := peerIn(t, t.TempDir())
			r, src := taken(t, cfg)
			r = spoil(t, cfg, r)
			if err := r.StepBack(t.Context()); !errors.Is(err, ErrNoCheckpoint) {
				t.Errorf("step back: %v", err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if n := verify(t, cfg, src.instants, 8); n != 5 {
				t.Errorf("holds %d", n)
			}
		})
	}
}

// A full image, and a delta of much of the RAM, have no way back: it would cost
// as much memory again.
func TestWayBackIsBounded(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 4, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.churn = 2
	src.mustCheckpoint()
	if r.rec.Before != nil {
		t.Error("a way back from a full image")
	}
	if src.mustCheckpoint(); r.rec.Before == nil {
		t.Fatal("no way back from a delta")
	}
	src.scribble(2000)
	if src.mustCheckpoint(); r.rec.Before != nil {
		t.Error("a way back over all of the RAM")
	}
	files, err := os.ReadDir(cfg.RAMDir)
	if err != nil || len(files) != 1 {
		t.Errorf("left over: %v, %v", files, err)
	}
}

// A step back that a crash cuts off has been done or not.
func TestStepBackCrashesAtEveryChange(t *testing.T) {
	done := false
	for at := 1; !done; at++ {
		cfg := peerIn(t, t.TempDir())
		src := newSource(t, 4, 3, cfg.Disks.(testDisks))
		story(t, cfg, src, func(uint64) {})
		crash := &reaper{}
		r := mustOpen(t, withReaper(cfg, crash))
		if _, err := r.TakeOver(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		crash.mu.Lock()
		crash.n, crash.at = 0, at
		crash.mu.Unlock()
		err := r.StepBack(context.Background())
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		n := verify(t, cfg, src.instants, 7)
		if err == nil && n != 4 || n != 4 && n != 5 {
			t.Errorf("crash at %d: %d, %v", at, n, err)
		}
		if done = err == nil && crash.n < at; done && at < 8 {
			t.Errorf("only %d changes in a step back: %v", at, crash.trace)
		}
	}
}
