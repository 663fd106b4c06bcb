package snapshot

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/shmtest"
)

var (
	moments    = flag.Int("moments", 200, "power cuts of TestPowerCutAtAnyMoment")
	momentSeed = flag.Uint64("moments.seed", 0, "replay: the seed of one moment; 0: new ones")
)

// TestPowerCutAtAnyMoment cuts the power of the owner, the peer or both at random
// moments of a guest that writes through its mirror while checkpoints are taken,
// links are cut, and agents and peers die and come back. Whatever the moment:
//
//   - restart: a replica that counts and may be booted has every acknowledged
//     write;
//   - resume: what can be resumed is a whole checkpoint, memory and disks of the
//     same instant, and a replica that counts has the newest acknowledged one;
//   - a peer without power never offers what it may have lost;
//   - disks said to be whole, or set back to what they were before a resync, are
//     what the guest's were at one moment.
func TestPowerCutAtAnyMoment(t *testing.T) {
	if *momentSeed != 0 {
		t.Log(newMoment(t, *momentSeed).live())
		return
	}
	count := uint64(*moments)
	if underRace {
		count = min(count, 40) // make sim cuts at all of them
	}
	first := uint64(time.Now().UnixNano()) >> 10
	t.Logf("seeds from %d; one alone: -moments.seed=N", first)
	var mu sync.Mutex
	told := map[string]int{}
	var next atomic.Uint64
	var lanes sync.WaitGroup
	for range 4 {
		lanes.Go(func() {
			for n := next.Add(1) - 1; n < count && !t.Failed(); n = next.Add(1) - 1 {
				what := newMoment(t, first+n).live()
				mu.Lock()
				told[what]++
				mu.Unlock()
			}
		})
	}
	lanes.Wait()
	t.Logf("%3d times a content from before a resync was kept, and was brought back", heldMoments.Load())
	if count >= 100 && heldMoments.Load() == 0 {
		t.Error("no moment was in a resync of a replica that was whole before")
	}
	for _, what := range slices.Sorted(maps.Keys(told)) {
		t.Logf("%3d times: %s", told[what], what)
	}
}

// moment is one pair of nodes with one guest, up to a power cut.
type moment struct {
	t      testing.TB
	seed   uint64
	random *rand.Rand
	dir    string
	resume bool
	rate   int64 // of a resync; 0: as fast as it goes
	guest  *synthetic

	mu      sync.Mutex // the peer comes and goes
	peer    *Standby
	disk    *platter
	root    string
	ram     string
	boots   int
	joined  int // the boot in which an owner has joined the replica
	streams []Stream

	counting sync.Mutex
	counts   bool
	short    atomic.Bool // the peer has no memory for what it has

	protector *Protector
	end       context.CancelFunc
	over      chan struct{}
}

func newMoment(t testing.TB, seed uint64) *moment {
	m := &moment{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 3)), dir: shmtest.TempDir(t), boots: 1}
	m.resume, m.rate = m.random.IntN(2) > 0, []int64{0, 1 << 20, 500_000}[m.random.IntN(3)]
	m.root, m.ram = filepath.Join(m.dir, "peer"), filepath.Join(m.dir, "peer-ram")
	must(t, os.MkdirAll(m.root, 0o700))
	m.guest = newSynthetic(t, m.dir, standbyIn(m.root, m.ram).Disks)
	return m
}

func (m *moment) failf(format string, args ...any) {
	m.t.Errorf("seed %d: %s", m.seed, fmt.Sprintf(format, args...))
}

// live lives up to the cut and says what it was.
func (m *moment) live() string {
	m.wake()
	m.start(false)
	m.guest.begin(m.seed)
	for range m.random.IntN(4) {
		m.sleep(60)
		m.disturb()
	}
	switch m.random.IntN(4) {
	case 0: // in a resync
		m.awaitSync()
		m.disturb()
		m.sleep(100)
	case 1: // right when the peer has run out of memory
		m.awaitSync()
		m.short.Store(true)
		m.sleep(16)
		return m.cutPower()
	case 2:
		m.awaitSync()
	}
	m.sleep(40)
	return m.cutPower()
}

func (m *moment) sleep(most int) {
	time.Sleep(time.Duration(m.random.IntN(most*1000)) * time.Microsecond)
}

// awaitSync waits until the replica counts, for a while.
func (m *moment) awaitSync() {
	for range 400 {
		m.counting.Lock()
		counts := m.counts
		m.counting.Unlock()
		if counts {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// start is a new agent at the owner.
func (m *moment) start(outdated bool) {
	config := ProtectorConfig{
		UUID: "g", Epoch: tellerEpoch, Counter: filepath.Join(m.dir, "counter"), PID: os.Getpid(), Mirror: m.guest.mirror, Machine: m.guest,
		Outdated: outdated, Degrade: m.degrade, Synced: m.synced, Noted: func(string, string) {}, Log: slog.New(slog.DiscardHandler),
		ackDeadline: 100 * time.Millisecond, Rate: func() int64 { return m.rate },
		Detached: func() bool { m.counting.Lock(); defer m.counting.Unlock(); return !m.counts },
		Room:     func() int64 { return tellerRAM },
	}
	if m.resume {
		config.RAM, config.RAMSize = m.guest.ramPath(), tellerRAM
	}
	var err error
	m.protector, err = NewProtector(config)
	must(m.t, err)
	ctx, end := context.WithCancel(context.Background())
	m.end, m.over = end, make(chan struct{})
	go func() {
		defer close(m.over)
		for ctx.Err() == nil { // as the agent does
			_ = m.protector.Protect(ctx, m.dial((*Standby).ServeDisks), m.dial((*Standby).ServeCheckpoints), func() time.Duration { return 8 * time.Millisecond })
			_ = m.degrade(ctx)
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
}

// stop is the end of the owner's agent.
func (m *moment) stop() {
	m.end()
	<-m.over
	must(m.t, m.protector.Close())
}

func (m *moment) degrade(context.Context) error {
	time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond) // the witness is asked
	return m.count(false)
}
func (m *moment) synced(context.Context) error { return m.count(true) }
func (m *moment) count(counts bool) error {
	m.counting.Lock()
	defer m.counting.Unlock()
	m.counts = counts
	return nil
}

func (m *moment) dial(serve func(*Standby, context.Context, Stream) error) Dial {
	return func(context.Context) (Stream, replicator.Peer, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.peer == nil {
			return nil, replicator.Peer{}, errDead
		}
		peer := m.peer
		said, err := peer.Says()
		if err != nil {
			return nil, said, err
		}
		m.joined = m.boots
		stream := join(func(ctx context.Context, s Stream) error { return serve(peer, ctx, s) })
		m.streams = append(m.streams, stream)
		return stream, said, nil
	}
}

// wake opens the peer's replica.
func (m *moment) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	config := standbyIn(m.root, m.ram)
	config.UUID, config.BootID, config.Room = "g", fmt.Sprintf("boot-%d", m.boots), m.room
	m.disk = newPlatter(m.t, m.root, 0, false)
	m.disk.slow = func() {
		if rand.IntN(8) == 0 {
			time.Sleep(time.Duration(rand.IntN(400)) * time.Microsecond)
		}
	}
	config.files = m.disk.files()
	sameImages(m.t, config)
	var err error
	if m.peer, err = OpenStandby(context.Background(), config); err != nil {
		m.peer = nil
		m.failf("the peer's replica does not open: %v", err)
	}
}

// room is what the peer's memory has room for: often too little for two images.
func (m *moment) room() int64 {
	if m.short.Load() {
		return -1
	}
	return []int64{tellerRAM / 2, 2 * tellerRAM}[rand.IntN(2)]
}

// die ends the peer's process, or its power, wherever it is.
func (m *moment) die(power bool) {
	m.disk.cut()
	m.mu.Lock()
	peer := m.peer
	m.peer = nil
	m.mu.Unlock()
	if peer != nil {
		_ = peer.Close()
	}
	if power {
		m.boots++
		next := filepath.Join(m.dir, fmt.Sprintf("peer-%d", m.boots))
		m.disk.leave(m.t, m.random.Uint64N(20), next)
		m.root, m.ram = next, next+"-ram"
	}
}

// disturb does something from which the pair recovers.
func (m *moment) disturb() {
	switch m.random.IntN(6) {
	case 4: // the owner is short of memory
		must(m.t, m.protector.GiveUp())
	case 5:
		m.short.Store(true)
		m.sleep(100)
		m.short.Store(false)
	case 0:
		m.mu.Lock()
		for _, s := range m.streams {
			_ = s.Close()
		}
		m.streams = nil
		m.mu.Unlock()
	case 1:
		m.die(false)
		m.sleep(200)
		m.wake()
	case 2:
		m.die(true)
		m.sleep(200)
		m.wake()
	default:
		m.stop()
		_ = m.degrade(context.Background()) // an adopting agent outdates the replica first
		m.start(true)
	}
}

// cutPower is the cut that this is about. What was acknowledged, and whether the
// replica counts, is looked at before it; what is written meanwhile is newer.
func (m *moment) cutPower() string {
	const ownerCut, peerKilled, bothCut = "owner's power cut", "peer killed, then owner's power cut", "both without power"
	what := []string{ownerCut, peerKilled, bothCut}[m.random.IntN(3)]
	if what != ownerCut { // and a moment later the owner
		m.die(what == bothCut)
		m.sleep(3)
	}
	m.counting.Lock()
	counts, acked := m.counts, m.guest.ledger.acknowledged()
	sequence, disks := m.protector.Last().Sequence, m.protector.Disks()
	m.counting.Unlock()
	m.guest.kill()
	m.mu.Lock() // before the peer is back: the agent may still find it
	rebooted := m.joined != m.boots
	m.mu.Unlock()
	if what != ownerCut {
		m.wake()
	}
	m.judge(what, counts, rebooted, sequence, acked)
	m.stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peer != nil {
		_ = m.peer.Close()
	}
	if counts {
		return what + ", the replica counts"
	}
	return fmt.Sprintf("%s, the replica does not count (disks %s, outdated %v)", what, disks.Phase, disks.Outdated)
}

// judge takes the guest over.
func (m *moment) judge(what string, counts, rebooted bool, sequence uint64, acked map[string][]int) {
	if m.peer == nil {
		return
	}
	ctx := context.Background()
	status, err := m.peer.Status(ctx)
	if err != nil {
		m.failf("%s: %v", what, err)
		return
	}
	if rebooted && status.Complete {
		m.failf("%s: a replica without its memory says that it can be resumed", what)
	}
	if m.resume {
		from, err := m.peer.TakeOver(ctx, 9)
		switch {
		case err == nil:
			m.whole(what, from, counts, sequence)
			return
		case counts && !rebooted && what != "both without power":
			m.failf("%s: a replica that counts (checkpoint %d) is not resumed: %v", what, sequence, err)
		case !errors.Is(err, replica.ErrMemoryAbsent) && !errors.Is(err, replica.ErrNoCheckpoint):
			m.failf("%s: %v", what, err)
		}
	}
	content := m.peer.Content()
	if counts && content.Held {
		m.failf("%s: a replica that counts keeps something older", what)
	}
	if err := m.peer.TakeOverDisks(ctx, 9); err != nil {
		m.failf("%s: the disks are not taken over: %v", what, err)
	} else if err := m.setBack(content); err != nil {
		m.failf("%s: the disks were held %v, whole %v: %v", what, content.Held, content.Whole, err)
	} else if counts && !rebooted && !m.resume {
		if err := m.guest.ledger.follow(m.peer.config.Disks, ackedBy(acked)); err != nil {
			m.failf("%s: a replica that counts lacks a write: %v", what, err)
		}
	} else if rebooted && sequence != 0 {
		m.guest.ledger.promise(sequence)
		if err := m.guest.ledger.follow(m.peer.config.Disks, nothingDurableLost); err != nil {
			m.failf("%s: checkpoint %d was acknowledged and is not on the disks: %v", what, sequence, err)
		}
	}
}

// setBack looks at disks that were said to be whole, or to hold what was.
func (m *moment) setBack(content replicator.Content) error {
	if content.Held {
		heldMoments.Add(1)
	}
	if !content.Held && !content.Whole {
		return nil
	}
	return m.guest.ledger.legal(m.peer.config.Disks)
}

// heldMoments counts those in which something older was held.
var heldMoments atomic.Int64

// whole looks at a checkpoint that was taken over.
func (m *moment) whole(what string, from replica.Checkpoint, counts bool, sequence uint64) {
	if counts && from.Sequence < sequence {
		m.failf("%s: checkpoint %d, %d was acknowledged", what, from.Sequence, sequence)
	}
	m.guest.mu.Lock()
	want := m.guest.instants[from.Sequence]
	m.guest.mu.Unlock()
	ram, err := os.ReadFile(from.RAMPath)
	if err != nil || !bytes.Equal(ram, want) || string(from.Blob) != fmt.Sprintf("devices %d", from.Sequence) {
		m.failf("%s: memory or devices are not those of checkpoint %d: %v", what, from.Sequence, err)
	}
	if _, err := m.peer.Activate(context.Background()); err != nil { // rolls the disks back
		m.failf("%s: %v", what, err)
	}
	if err := m.guest.ledger.follow(m.peer.config.Disks, atMark(from.Sequence)); err != nil {
		m.failf("%s: the disks are not those of checkpoint %d: %v", what, from.Sequence, err)
	}
}

// acknowledged is the newest acknowledged version of every sector now.
func (l *ledger) acknowledged() map[string][]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	acked := map[string][]int{}
	for name, d := range l.disks {
		acked[name] = slices.Clone(d.acked)
	}
	return acked
}

// ackedBy: what had been acknowledged then, or anything newer.
func ackedBy(acked map[string][]int) rule {
	return func(l *ledger, disk string, at int) []uint64 { return l.disks[disk].versions[at][acked[disk][at]:] }
}
