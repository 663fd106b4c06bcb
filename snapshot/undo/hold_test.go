package undo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmctl/snapshot/durable"
)

// A hold brings back what was there, whatever was written, marked, folded, dropped
// and opened anew since; the markers do not notice it.
func TestHoldBringsBackTheContent(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		path, size := filepath.Join(t.TempDir(), "d"), int64(1<<20)+512
		d := mustOpen(t, path, size)
		model := make([]byte, size)
		must(t, d.Mark(1))
		for range 10 {
			scribble(t, random, d, model)
		}
		marked := make([]byte, size)
		must(t, d.Hold())
		held := bytes.Clone(model)
		for i := range 40 {
			scribble(t, random, d, model)
			switch random.IntN(8) {
			case 0:
				must(t, d.Mark(uint64(10+i)))
			case 1:
				must(t, d.Fold(1, uint64(10+i)))
			case 2:
				must(t, d.Prepare(0, random.Int64N(size)))
				must(t, d.SyncHold())
			case 3:
				must(t, d.Close())
				d = mustOpen(t, path, size)
			}
		}
		must(t, d.CheckHold())
		must(t, d.Restore())
		if !bytes.Equal(content(t, d), held) {
			t.Fatalf("seed %d: not what was held", seed)
		}
		must(t, d.Release())
		if d.Held() || d.HoldBytes() != 0 || !errors.Is(d.Restore(), ErrMarker) {
			t.Fatalf("seed %d: held after Release", seed)
		}
		must(t, d.Rollback(1))
		if !bytes.Equal(content(t, d), marked) {
			t.Fatalf("seed %d: the marker's content is not what it was", seed)
		}
	}
}

// The old content is durable before it is overwritten.
func TestHoldIsDurableBeforeTheWrite(t *testing.T) {
	var changes []durable.Change
	files := durable.Files{Watch: func(c durable.Change) error {
		c.Data = bytes.Clone(c.Data)
		changes = append(changes, c)
		return nil
	}}
	d, err := OpenWith(files, filepath.Join(t.TempDir(), "d"), 1<<20)
	must(t, err)
	defer d.Close()
	write := func(first byte, off int64) {
		_, err := d.WriteAt(bytes.Repeat([]byte{first}, 4096), off)
		must(t, err)
	}
	write(1, 0)
	must(t, d.Hold())
	for _, prepared := range []bool{false, true} {
		changes = nil
		if prepared {
			must(t, d.Prepare(8192, 4096))
			must(t, d.Prepare(16384, 4096))
			must(t, d.SyncHold())
			write(2, 8192)
			write(2, 16384)
		} else {
			write(2, 0)
		}
		logged, synced := 0, 0
		for _, c := range changes {
			switch isLog := strings.HasPrefix(filepath.Base(c.Path), holdName); {
			case isLog && c.Kind == durable.Write:
				logged, synced = logged+1, 0
			case isLog && c.Kind == durable.Sync:
				synced++
			case c.Kind == durable.Write && (logged == 0 || synced == 0):
				t.Errorf("prepared %v: %d logged, %d syncs after it, and then the image was written", prepared, logged, synced)
			}
		}
	}
}

// What a power cut leaves behind the durable part is cut off; damage before it is
// seen, and nothing is changed by it.
func TestTornHold(t *testing.T) {
	make4 := func(t *testing.T) (path string, ends []int64) {
		path = filepath.Join(t.TempDir(), "d")
		d := mustOpen(t, path, 1<<20)
		_, err := d.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 0)
		must(t, err)
		must(t, d.Hold())
		for i := range int64(4) {
			_, err := d.WriteAt(make([]byte, 4096), i*65536)
			must(t, err)
			ends = append(ends, d.HoldBytes())
		}
		must(t, d.Prepare(5*65536, 4096)) // not durable, its block not written
		ends = append(ends, d.HoldBytes())
		must(t, d.Close())
		return path, ends
	}
	for name, c := range map[string]struct {
		at   int // damaged is the middle of this record
		want error
	}{"last, not durable": {4, nil}, "first": {0, ErrDamaged}, "header of the second": {-1, ErrDamaged}} {
		t.Run(name, func(t *testing.T) {
			path, ends := make4(t)
			log := filepath.Join(path+".undo", holdName)
			raw, err := os.ReadFile(log)
			must(t, err)
			if c.at < 0 {
				clear(raw[ends[0] : ends[0]+8])
			} else {
				raw[ends[c.at]-100] ^= 1
			}
			must(t, os.WriteFile(log, raw, 0o600))
			d := mustOpen(t, path, 1<<20)
			before := content(t, d)
			if err := d.Restore(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("Restore: %v, want %v", err, c.want)
			}
			want := bytes.Repeat([]byte{7}, 1<<20)
			if c.want != nil {
				want = before
			}
			if !bytes.Equal(content(t, d), want) {
				t.Error("not what was held, or what was there")
			}
		})
	}
}

// A sync that failed leaves nothing that is believed.
func TestHoldThatIsNotDurable(t *testing.T) {
	broken := errors.New("input/output error")
	fail := false
	files := durable.Files{Watch: func(c durable.Change) error {
		if fail && c.Kind == durable.Sync && strings.HasPrefix(filepath.Base(c.Path), holdName) {
			return broken
		}
		return nil
	}}
	d, err := OpenWith(files, filepath.Join(t.TempDir(), "d"), 1<<20)
	must(t, err)
	defer d.Close()
	must(t, d.Hold())
	fail = true
	must(t, d.Prepare(0, 4096))
	if err := d.SyncHold(); !errors.Is(err, broken) {
		t.Errorf("SyncHold: %v", err)
	}
	fail = false
	must(t, d.SyncHold())
	if err := d.CheckHold(); !errors.Is(err, ErrDamaged) {
		t.Errorf("after a sync that failed: %v", err)
	}
}
