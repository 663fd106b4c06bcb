package snapshot

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"vmctl/snapshot/memory"
)

// TestVoidBesideACheckpoint: a guest that shuts itself down while a checkpoint of it is
// being sent is never resumed from one.
func TestVoidBesideACheckpoint(t *testing.T) {
	const size = 4 << 20
	for n := range 4 {
		g := newFakeGuest(t, size, touch(size/memory.PageSize))
		g.write(g.ram)
		p, dial := g.protect(t, func(c net.Conn) net.Conn { return slowConn{c, 40 << 20} })
		ctx, cancel := context.WithCancel(t.Context())
		synced := make(chan struct{}, 1)
		p.config.Synced = func(context.Context) error { synced <- struct{}{}; return nil }
		done := make(chan error, 1)
		go func() { done <- p.Protect(ctx, nil, dial, func() time.Duration { return time.Millisecond }) }()
		<-synced
		g.world.Lock()
		for at := 0; at < size; at += 8 {
			binary.LittleEndian.PutUint64(g.ram[at:], rand.Uint64())
		}
		g.world.Unlock()
		time.Sleep(time.Duration(70*n) * time.Millisecond)
		if err := p.Void(ctx, "the guest shut itself down"); err != nil {
			t.Errorf("not voided: %v", err)
		}
		cancel()
		<-done
	}
}
