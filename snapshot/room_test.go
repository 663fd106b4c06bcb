package snapshot

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

// TestCopyIsGivenUp: a host that is short of memory has back what the copy of a guest's
// takes, with a link and without one; and a guest is begun to be protected only where
// there is room for it. Then everything is sent anew.
func TestCopyIsGivenUp(t *testing.T) {
	const size = 8 << 20
	g := newFakeGuest(t, size, touch(1))
	for range 500 {
		g.write(g.ram)
	}
	p, dial := g.protect(t, nil)
	room, interval := int64(size), func() time.Duration { return time.Millisecond }
	p.config.Room = func() int64 { return room }
	synced := make(chan struct{}, 1)
	p.config.Synced = func(context.Context) error { synced <- struct{}{}; return nil }
	protect := func() <-chan error {
		done := make(chan error, 1)
		go func() { done <- p.Protect(t.Context(), nil, dial, interval) }()
		return done
	}
	refused := func(done <-chan error) {
		t.Helper()
		if err := <-done; !errors.Is(err, ErrNoRoom) {
			t.Errorf("the link ended: %v", err)
		}
		if held := p.Held(); held != 0 {
			t.Errorf("a copy of %d bytes is held", held)
		}
	}
	for range 2 {
		done := protect()
		<-synced
		if p.Held() < 500*4096 {
			t.Errorf("a copy of %d bytes", p.Held())
		}
		if err := p.GiveUp(); err != nil {
			t.Error(err)
		}
		refused(done)
	}
	room = 1 << 20 // less than it takes
	refused(protect())
	room = -1
	refused(protect())
	room = size

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Protect(ctx, nil, dial, interval) }()
	<-synced
	cancel()
	<-done
	if held := p.Held(); held == 0 {
		t.Error("no copy after a link that was lost")
	}
	shadow := make([]byte, size)
	if _, err := p.shadow.ReadAt(shadow, 0); err != nil || !bytes.Equal(shadow, g.instant) {
		t.Errorf("the copy is not the memory of the last pause: %v", err)
	}
	if err := p.GiveUp(); err != nil || p.Held() != 0 {
		t.Errorf("without a link: %d bytes are held, %v", p.Held(), err)
	}
}
