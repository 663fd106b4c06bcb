package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vmctl/snapshot/memory"
)

const metPages = 256 // of the guest

// metDirty names every page, and only once devices are being saved too.
type metDirty struct {
	blindDirty
	found, saving chan struct{}
	ctx           context.Context
}

func (d metDirty) Find(named, _ *memory.Delta) error {
	close(d.found)
	select {
	case <-d.saving:
	case <-d.ctx.Done():
		return errors.New("no device is saved while memory is looked at")
	}
	return named.Add(memory.Run{Count: metPages})
}

// Devices and memory are taken at the same time: the pause is as long as one of
// them.
func TestDevicesAndMemoryAreTakenTogether(t *testing.T) {
	g := newFakeGuest(t, metPages*memory.PageSize, nil)
	g.ram[5] = 1
	p, dial := g.protect(t, nil)
	stream, _, _ := dial(t.Context())
	if _, err := p.sender.Attach(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandBound/2)
	defer cancel()
	d := metDirty{found: make(chan struct{}), saving: make(chan struct{}), ctx: ctx}
	p.finder = memory.NewFinder(p.image, p.shadow, p.sender.Delta(), d, func(err error) { t.Error(err) })
	g.checkpoint(t, p) // compares everything: it is the first
	g.devices = func(ctx context.Context) ([]byte, error) {
		close(d.saving)
		select {
		case <-d.found:
			return []byte("devices"), nil
		case <-ctx.Done():
			return nil, errors.New("no memory is looked at while devices are saved")
		}
	}
	g.checkpoint(t, p)
}

// What QEMU keeps to itself is brought into the RAM file while the guest stands
// still, and is in the same checkpoint. While it cannot be had there are none, and
// the link stays.
func TestScreenIsPartOfACheckpoint(t *testing.T) {
	const size, at = 1 << 20, 1<<20 - memory.PageSize
	g := newFakeGuest(t, size, func([]byte) {})
	p, dial := g.protect(t, nil)
	shown, looks := byte(0), 0
	p.config.Screen = func(context.Context) error {
		if looks++; looks <= 3 {
			return fmt.Errorf("%w: in this test", ErrNotYet)
		}
		if g.running.Load() {
			t.Error("the screen is read of a guest that runs")
		}
		shown++
		g.ram[at] = shown
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var protecting sync.WaitGroup
	protecting.Go(func() {
		err := p.Protect(ctx, nil, dial, func() time.Duration { return time.Hour })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the link ended: %v", err)
		}
	})
	for p.Last().Sequence == 0 && t.Context().Err() == nil && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	protecting.Wait()
	page := make([]byte, 1)
	if _, err := p.shadow.ReadAt(page, at); err != nil || shown == 0 || page[0] != shown {
		t.Errorf("the checkpoint has screen %d, %d was shown last (%v)", page[0], shown, err)
	}
}

// A checkpoint of a guest that its user has paused has that state, and neither
// stops nor continues it; the guard is not to continue it either. One that runs
// is stopped under the guard's eyes.
func TestPausedGuestIsLeftPaused(t *testing.T) {
	for _, test := range []struct {
		paused bool
		state  string
		orders []string
	}{{false, "running", []string{"begin", "stop", "cont", "end"}}, {true, "paused", nil}} {
		g := newFakeGuest(t, 1<<20, nil)
		g.paused = test.paused
		p, dial := g.protect(t, nil)
		stream, _, _ := dial(t.Context())
		if _, err := p.sender.Attach(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		taken, err := p.capture(t.Context())
		if err != nil || taken.RunState != test.state || !slices.Equal(g.orders, test.orders) {
			t.Errorf("a %s guest: saved as %q after %q, %v", test.state, taken.RunState, g.orders, err)
		}
	}
}

// A state that cannot be saved makes no checkpoint; the guest goes on, and what
// it wrote is in the next one.
func TestFailedDevicesLoseNoPage(t *testing.T) {
	const size = 8 << 20
	g := newFakeGuest(t, size, nil)
	p, dial := g.protect(t, nil)
	stream, _, _ := dial(t.Context())
	if _, err := p.sender.Attach(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	g.checkpoint(t, p)
	broken := errors.New("no state")
	g.devices = func(context.Context) ([]byte, error) { return nil, broken }
	if _, err := rand.Read(g.ram); err != nil { // nothing that could be made smaller
		t.Fatal(err)
	}
	if _, err := p.checkpoint(t.Context()); !errors.Is(err, broken) || !g.running.Load() {
		t.Fatalf("%v, running %v", err, g.running.Load())
	}
	g.devices = nil
	report := g.checkpoint(t, p)
	shadow := make([]byte, size)
	if _, err := p.shadow.ReadAt(shadow, 0); err != nil || !bytes.Equal(shadow, g.instant) {
		t.Errorf("the checkpoint is not the memory of the pause (%v)", err)
	}
	if report.Bytes < size {
		t.Errorf("%d bytes went out, %d were written", report.Bytes, size)
	}
}
