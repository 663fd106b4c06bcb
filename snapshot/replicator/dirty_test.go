package replicator

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/nbd"
)

// degraded is a rig whose replica was complete until its link was cut, and is
// outdated now.
func degraded(t *testing.T, size int, change func(*Options)) *rig {
	t.Helper()
	g := newRig(t, size, change)
	c := g.attach()
	settled(g, InSync)
	c.cut()
	must(t, g.write(0, []byte("outdates"), 3))
	if s := settled(g, Detached); !s.Outdated || s.Dirty != ChunkSize {
		t.Fatalf("state %+v", s)
	}
	return g
}

func mapped(dir string) func(*Options) {
	return func(o *Options) { o.Map = MapOptions{Path: filepath.Join(dir, "map"), Instance: "boot qemu"} }
}

func TestOnlyWhatWasWrittenIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 40<<20 + 77
		g := degraded(t, size, nil)
		must(t, g.write(0, bytes.Repeat([]byte{1}, 3*ChunkSize), 20<<20+1)) // in four chunks
		must(t, g.write(1, []byte("end"), size-3))
		g.live[1].set(make([]byte, 9), 9)
		must(t, (&device{g.owner, 1}).Discard(9, 9, true))
		g.live[1].set(make([]byte, 5), 1<<20) // what QEMU's drivers made of a TRIM
		must(t, (&device{g.owner, 1}).Discard(1<<20, 5, false))
		g.attach()
		s := settled(g, InSync)
		must(t, g.same())
		const most = 7*ChunkSize + 77
		if s.Full || s.Total != most || s.Compared != most || s.Sent > most || s.Sent < most-2*ChunkSize || s.Dirty != 0 {
			t.Errorf("a resync of seven chunks and the end: %+v", s)
		}
		g.stop()
	})
}

// A compare of everything that is cut off goes on where it was.
func TestCompareGoesOnAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 20<<20, func(o *Options) { o.Rate = func() int64 { return 10 << 20 } })
		c := g.attach()
		time.Sleep(2 * time.Second)
		s := settled(g, Resync)
		if !s.Full || s.Compared < 19<<20 || s.Compared > 25<<20 {
			t.Errorf("2 s at 10 MiB/s: %+v", s)
		}
		c.cut()
		g.attach()
		time.Sleep(2100 * time.Millisecond)
		if s := settled(g, InSync); s.Full || s.Total > 21<<20 {
			t.Errorf("the rest: %+v", s)
		}
		must(t, g.same())
		g.stop()
	})
}

// A link is back before the workers of the one before have let go of their chunks.
func TestLinkThatIsBackTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1<<20, nil)
		hold := make(chan struct{})
		for _, l := range g.live {
			l.slow = func() { <-hold }
		}
		c := g.attach()
		settled(g, Resync)
		c.peer.Close()
		settled(g, Detached)
		g.attach()
		synctest.Wait()
		close(hold)
		settled(g, InSync)
		must(t, g.same())
		g.stop()
	})
}

// Each of these means that the owner knows nothing of what the peer has.
func TestEverythingIsCompared(t *testing.T) {
	for name, change := range map[string]func(g *rig){
		"another replica":              func(g *rig) { must(g.t, g.identity.Renew()) },
		"peer's host went down":        func(g *rig) { g.wake(); g.openIdentity("other boot") },
		"a replica without identity":   func(g *rig) { g.identity, g.receiver.opts.Identity = nil, nil },
		"a mirror that connects anew":  func(g *rig) { g.owner.connected(1)() },
		"an image that another one is": func(g *rig) { otherFile(g.t, filepath.Join(g.dir, names[0])); g.openIdentity("boot") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := degraded(t, 4<<20, nil)
				change(g)
				g.attach()
				if s := settled(g, InSync); !s.Full || s.Total != 8<<20 {
					t.Errorf("%+v", s)
				}
				must(t, g.same())
				g.stop()
			})
		})
	}
	t.Run("the same replica", func(t *testing.T) { // or the above shows nothing
		synctest.Test(t, func(t *testing.T) {
			g := degraded(t, 4<<20, nil)
			must(t, g.receiver.Close())
			g.openIdentity("boot after a shutdown")
			g.attach()
			if s := settled(g, InSync); s.Full || s.Total != ChunkSize {
				t.Errorf("%+v", s)
			}
			g.stop()
		})
	})
}

// wake makes a stream possible.
func (g *rig) wake() {
	g.t.Helper()
	_, err := g.identity.Wake()
	must(g.t, err)
}

// otherFile puts a copy in a file's place.
func otherFile(t testing.TB, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path+".copy", content, 0o600))
	must(t, os.Rename(path+".copy", path))
}

// The owner learned the identity before it sent its Hello; it may have changed.
func TestReplicaThatChangesBeforeTheHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := degraded(t, 1<<20, nil)
		c := &connection{lost: make(chan error, 1)}
		owner, peer := pipe()
		says := Peer{Replica: g.identity.Value(), Holds: true}
		must(t, g.identity.Renew())
		go func() { c.lost <- g.owner.Attach(t.Context(), owner, says) }()
		if err := g.receiver.Serve(t.Context(), peer); !errors.Is(err, ErrOtherReplica) {
			t.Errorf("Serve: %v", err)
		}
		<-c.lost
		g.stop()
	})
}

// Hello, one version back and forth.
func TestHelloOneVersionBack(t *testing.T) {
	type before struct {
		Guest string
		Epoch uint64
		Disks []DiskInfo
	}
	now := Hello{Guest: "g", Epoch: 7, Disks: []DiskInfo{{Name: "d", Size: 5}}, Replica: []byte("which")}
	body, err := wire.Encode(&now)
	must(t, err)
	var old before
	if must(t, decode(body, &old)); old.Guest != "g" || old.Epoch != 7 || len(old.Disks) != 1 {
		t.Errorf("a peer of the version before takes it for %+v", old)
	}
	body, err = wire.Encode(&old)
	must(t, err)
	var got Hello
	if must(t, decode(body, &got)); got.Guest != "g" || got.Epoch != 7 || got.Replica != nil {
		t.Errorf("from an owner of the version before: %+v", got)
	}
}

// The agent is killed while degraded, and its successor knows what was written.
func TestKilledWhileDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := degraded(t, 20<<20, mapped(t.TempDir()))
		must(t, g.write(1, []byte("x"), 7<<20))
		g.stop()
		g.opts.Map.Load, g.opts.Outdated = true, true
		g.serve()
		if loaded, missing := g.owner.Loaded(); !loaded || len(missing) != 2 {
			t.Errorf("loaded %t, missing %v", loaded, missing)
		}
		g.owner.connected(0)()
		g.owner.connected(1)()
		must(t, g.write(1, []byte("y"), 9<<20))
		g.attach()
		if s := settled(g, InSync); s.Full || s.Total != 3*ChunkSize || s.Sent != s.Total {
			t.Errorf("%+v", s)
		}
		must(t, g.same())
		g.owner.connected(1)() // not expected
		if s := settled(g, InSync); !s.Full {
			t.Errorf("after another connection: %+v", s)
		}
		g.stop()
	})
}

// What an earlier process left is not used in any of these cases.
func TestMapThatIsNotUsed(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, g *rig){
		"not adopted":     func(t *testing.T, g *rig) { g.opts.Map.Load = false },
		"another QEMU":    func(t *testing.T, g *rig) { g.opts.Map.Instance = "boot other" },
		"another epoch":   func(t *testing.T, g *rig) { g.opts.Epoch++ },
		"a larger disk":   func(t *testing.T, g *rig) { g.opts.Disks[1].Size++ },
		"missing":         func(t *testing.T, g *rig) { must(t, os.Remove(g.opts.Map.Path)) },
		"cut off":         func(t *testing.T, g *rig) { must(t, os.Truncate(g.opts.Map.Path, blockSize)) },
		"damaged header":  func(t *testing.T, g *rig) { flip(t, g.opts.Map.Path, 50) },
		"of a bad mirror": func(t *testing.T, g *rig) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := degraded(t, 4<<20, mapped(t.TempDir()))
				if name == "of a bad mirror" {
					must(t, g.owner.Recheck())
				}
				g.stop()
				g.opts.Map.Load = true
				g.opts.Disks = append([]Disk(nil), g.opts.Disks...)
				spoil(t, g)
				owner, err := New(g.opts, quiet())
				must(t, err)
				if s := owner.State(); s.Dirty != s.Total {
					t.Errorf("%d of %d bytes are known to be dirty", s.Dirty, s.Total)
				}
			})
		})
	}
}

// A block that is damaged stands for chunks that are all dirty.
func TestDamagedBlockOfAMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 300 << 20 // two blocks a disk
		m := MapOptions{Path: filepath.Join(t.TempDir(), "map"), Instance: "i"}
		disks := []Disk{{Name: "a", Size: size}, {Name: "b", Size: size}}
		made, _, _, err := openMap(m, "g", 1, disks)
		must(t, err)
		w := newWork(disks)
		w.file = made
		must(t, w.file.keep(0, w.disks[0].dirty, 0, len(w.disks[0].dirty)))
		must(t, w.file.keep(1, w.disks[1].dirty, 0, len(w.disks[1].dirty)))
		_, err = w.add(1, 299<<20, 1)
		must(t, err)
		flip(t, m.Path, blockSize*2+77) // the second block of a
		m.Load = true
		_, words, _, err := openMap(m, "g", 1, disks)
		must(t, err)
		for disk, all := range words {
			for word, got := range all {
				want := uint64(0)
				switch {
				case disk == 0 && word >= blockWords:
					want = ^uint64(0)
				case disk == 1 && word == 299*16/64:
					want = 1 << (299 * 16 % 64)
				}
				if got != want {
					t.Fatalf("disk %d, word %d: %x, want %x", disk, word, got, want)
				}
			}
		}
	})
}

// A map that cannot be written is taken away, and one that cannot be taken away
// either holds the write.
func TestMapThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := degraded(t, 1<<20, mapped(t.TempDir()))
		m := g.owner.work.file
		must(t, m.file.Close())
		must(t, g.write(1, []byte("x"), 5))
		if _, err := os.Stat(g.opts.Map.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the map is still there: %v", err)
		}
		none, err := os.Open(os.DevNull)
		must(t, err)
		must(t, none.Close())
		m.file, m.dead = none, false
		must(t, os.MkdirAll(filepath.Join(m.path, "stays"), 0o700))
		done := make(chan error, 1)
		go func() { done <- g.write(0, []byte("x"), 900_000) }()
		time.Sleep(time.Second)
		select {
		case err := <-done:
			t.Errorf("acknowledged, unrecorded: %v", err)
		default:
		}
		must(t, os.Remove(filepath.Join(m.path, "stays")))
		must(t, <-done)
		g.stop()
	})
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	raw[at] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
}

// Links are cut, agents of both sides killed and replicas exchanged while guests
// write; QEMU sends again what got no answer. In the end the replica is equal,
// and a resync was of a part wherever it could be.
func TestReplicaEqualsTheDiskWhoeverIsKilled(t *testing.T) {
	var all atomic.Int32
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			size := 3<<20 + random.IntN(100_000)
			dir := t.TempDir()
			// Nobody is silent here: no link is to be lost because others have the processor,
			// and 0.2 s were seen. But who has lost it waits so long.
			g := newRig(t, size, func(o *Options) { o.AckDeadline = 300 * time.Millisecond; mapped(dir)(o) })
			g.opts.Map.Load = true
			partial := 0
			for range 8 {
				c := g.attach()
				if random.IntN(3) > 0 {
					g.waitInSync(t)
					if s := g.owner.State(); s.Phase == InSync && !s.Full {
						partial++
					}
				}
				var writers sync.WaitGroup
				for guest := range 4 {
					mine := rand.New(rand.NewPCG(random.Uint64(), 5))
					writers.Go(func() { g.persist(mine, size, guest, 30) })
				}
				time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
				if random.IntN(2) == 0 {
					c.peer.Close()
				}
				if random.IntN(2) == 0 {
					g.stop()
					time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
					g.opts.Outdated = g.owner.State().Outdated
					g.serve()
					g.owner.connected(0)()
					g.owner.connected(1)()
				}
				if random.IntN(6) == 0 { // a power cut of the peer
					g.receiver.Stop()
					g.wake()
					g.openIdentity(fmt.Sprint(random.Uint64()))
					g.spoil("d0", random.Int64N(int64(size)))
					<-g.last.over // until the owner has heard of it, the replica counts for him
				}
				writers.Wait()
			}
			g.waitInSync(t)
			must(t, g.same())
			g.stop()
			all.Add(int32(partial))
		})
	}
	t.Cleanup(func() {
		if uint64(all.Load()) < seeds() {
			t.Errorf("%d of the resyncs were partial", all.Load())
		}
	})
}

// persist writes as QEMU does for a guest whose agent may be killed.
func (g *rig) persist(random *rand.Rand, size, guest, writes int) {
	for range writes {
		off := int64((random.IntN(size/1024/4)*4 + guest) * 1024)
		p := bytes.Repeat([]byte{byte(random.Uint32())}, 1+random.IntN(min(1024, size-int(off))))
		disk := random.IntN(2)
		g.live[disk].set(p, off)
		for {
			g.mu.Lock()
			owner := g.owner
			g.mu.Unlock()
			_, err := (&device{owner, disk}).WriteAt(p, off)
			if err == nil {
				break
			}
			if !errors.Is(err, nbd.ErrHangup) {
				g.t.Errorf("write: %v", err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}
