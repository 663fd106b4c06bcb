package qmp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"vmctl/vm/qmp"
)

const saves = 100

// One file for all saves: QEMU's files do not grow in number, nor the states
// in size, and each is a whole one. The guest stays stopped half of the time, as
// one that its user paused does.
func TestStateFileLeaksNothing(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		q := start(t)
		c := dial(t, q.path)
		before := q.files()
		s, err := qmp.NewStateFile(ctx, c)
		check(t, err)
		var first, state []byte
		for i := range saves {
			if i >= saves/2 {
				check(t, qmp.Stop(ctx, c))
			}
			state, err = s.Save(ctx, state)
			check(t, err)
			if i == 0 {
				first = bytes.Clone(state)
			}
			if i < saves/2 && !bytes.Equal(state, first) {
				t.Fatalf("save %d of a machine that never ran has other %d bytes than the first (%d)", i, len(state), len(first))
			}
			if len(state) < len(first)/2 || len(state) > len(first)*2 {
				t.Fatalf("save %d has %d bytes, the first %d", i, len(state), len(first))
			}
			if now := q.files(); now != before+1 {
				t.Fatalf("%d files open after save %d, %d before", now, i, before)
			}
			if i >= saves/2 {
				check(t, qmp.Cont(ctx, c))
			}
		}
		check(t, s.Close(ctx))
		if now := q.files(); now != before {
			t.Errorf("%d files open at the end, %d before", now, before)
		}
	})
}

// A new file for each save, removed after "cont".
func TestSaveDeviceStateLeaksNothing(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		q := start(t)
		c := dial(t, q.path)
		check(t, qmp.Cont(ctx, c))
		before := q.files()
		// Read-write, with an offset, and not empty: none of it may matter.
		f, err := os.CreateTemp(t.TempDir(), "")
		check(t, err)
		defer f.Close()
		_, err = f.Write(bytes.Repeat([]byte{0xff}, 1<<20))
		check(t, err)
		for i := range saves {
			check(t, qmp.Stop(ctx, c))
			set, err := qmp.SaveDeviceState(ctx, c, f)
			check(t, err)
			check(t, qmp.Cont(ctx, c))
			check(t, qmp.RemoveSavedFD(ctx, c, set))
			if now := q.files(); now != before {
				t.Fatalf("%d files open after save %d, %d before", now, i, before)
			}
		}
		info, err := f.Stat()
		check(t, err)
		head := make([]byte, 4)
		_, err = f.ReadAt(head, 0)
		check(t, err)
		if string(head) != "QEVM" || info.Size() > 1<<19 {
			t.Errorf("the file has %d bytes and begins with %q", info.Size(), head)
		}
	})
}

// What earlier connections left is found and removed, once the guest runs.
func TestRemoveStaleFDs(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		q := start(t)
		c := dial(t, q.path)
		before := q.files()
		f, err := os.CreateTemp(t.TempDir(), "")
		check(t, err)
		defer f.Close()
		for range 3 {
			set, err := qmp.SaveDeviceState(ctx, c, f)
			check(t, err)
			check(t, qmp.RemoveSavedFD(ctx, c, set)) // stopped: closes nothing
		}
		foreign := struct {
			Opaque string `json:"opaque"`
		}{"someone else's"}
		check(t, c.ExecuteWithFile(ctx, "add-fd", foreign, nil, f))
		if now := q.files(); now != before+4 {
			t.Logf("%d files open after 4 were passed, %d before: this QEMU closes them while stopped", now, before)
		}
		check(t, qmp.Cont(ctx, c))
		removed, err := qmp.RemoveStaleFDs(ctx, c)
		check(t, err)
		if now := q.files(); now != before+1 {
			t.Errorf("%d files open with one foreign, %d before; %d removed", now, before, removed)
		}
	})
}

// A save that was given up may still be written: the next has a file of its own.
func TestStateFileAfterGivingUp(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		q := start(t)
		c := dial(t, q.path)
		s, err := qmp.NewStateFile(ctx, c)
		check(t, err)
		first, err := s.Save(ctx, nil)
		check(t, err)
		q.freeze()
		_, err = s.Save(within(t, 50*time.Millisecond), nil)
		wantError(t, err, context.DeadlineExceeded)
		q.thaw()
		second, err := s.Save(ctx, nil)
		check(t, err)
		if !bytes.Equal(first, second) {
			t.Errorf("states of one stopped machine differ: %d and %d bytes", len(first), len(second))
		}
		check(t, s.Close(ctx))
	})
}

func TestLoadDeviceState(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		old := start(t)
		source := dial(t, old.path)
		check(t, qmp.Cont(ctx, source))
		check(t, qmp.Stop(ctx, source))
		s, err := qmp.NewStateFile(ctx, source)
		check(t, err)
		state, err := s.Save(ctx, nil)
		check(t, err)

		// A QEMU that does not wait for a state refuses it, and keeps nothing.
		err = qmp.LoadDeviceState(ctx, source, bytes.NewReader(state))
		if !qmp.HasClass(err, qmp.ClassGeneric) {
			t.Errorf("load into a machine that runs: %v", err)
		}

		q := start(t, old.ram)
		c := dial(t, q.path)
		before := q.files()
		// What is no state never reaches it.
		broken := io.MultiReader(bytes.NewReader(state[:100]), iotest.ErrReader(io.ErrClosedPipe))
		wantError(t, qmp.LoadDeviceState(ctx, c, broken), io.ErrClosedPipe)
		wantError(t, qmp.LoadDeviceState(ctx, c, bytes.NewReader(make([]byte, 100))), qmp.ErrNotState)

		check(t, qmp.LoadDeviceState(ctx, c, bytes.NewReader(state)))
		status, err := qmp.QueryStatus(ctx, c)
		check(t, err)
		if status.Status != qmp.StatePaused {
			t.Errorf("status after the load is %+v", status)
		}
		t2, err := qmp.NewStateFile(ctx, c)
		check(t, err)
		again, err := t2.Save(ctx, nil)
		check(t, err)
		if len(again) != len(state) {
			t.Errorf("state of %d bytes is %d bytes after a load", len(state), len(again))
		}
		check(t, qmp.Cont(ctx, c))
		check(t, t2.Close(ctx))
		if now := q.files(); now != before {
			t.Errorf("%d files open after the load, %d before", now, before)
		}
	})
}

// A state cut short ends QEMU 7.2; the error must say so.
func TestLoadOfTruncatedState(t *testing.T) {
	targets(t, func(t *testing.T, start starter) {
		ctx := background(t)
		c := dial(t, start(t, filepath.Join(t.TempDir(), "ram")).path)
		err := qmp.LoadDeviceState(ctx, c, bytes.NewReader([]byte("QEVM\x00\x00\x00\x03")))
		var refused *qmp.Error
		if err == nil || errors.As(err, &refused) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("load of a truncated state: %v", err)
		}
		t.Log(err)
		if c.Err() != nil {
			wantError(t, err, qmp.ErrClosed)
		}
	})
}
