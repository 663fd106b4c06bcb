package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/snapshot"
	"vmctl/snapshot/replicator"
	"vmctl/vm"
	"vmctl/vm/qmp"
)

// Back-off between two attempts to reach the peer's replica.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// keepProtected keeps the running guest's replica on the peer up to date, as
// long as the guest runs here, at the level its user wants at the time. Between two
// protectors its disks have no mirrors: then they grow.
func (g *guest) keepProtected(ctx context.Context, m *machine) {
	for ctx.Err() == nil {
		g.agreeOnSizes(ctx, m)
		level := g.spec().Protection.Level
		same, changed := context.WithCancel(ctx)
		watcher := start(same, func(ctx context.Context) {
			if g.await(ctx, func() bool { return g.record.Spec.Protection.Level != level || g.growing != nil }) == nil {
				changed()
			}
		})
		if level == vm.ProtectNone {
			g.settleUnprotected(same, m)
		} else {
			g.protectWhile(same, m)
		}
		unmirrored := ctx.Err()
		if unmirrored == nil {
			g.sayGrowing()
			unmirrored = g.stopMirror(ctx, m)
		}
		g.endProtector(m)
		watcher()
		changed()
		g.growAsked(ctx, m, unmirrored)
	}
}

// settleUnprotected lets a guest that was adopted without protection go on.
func (g *guest) settleUnprotected(ctx context.Context, m *machine) {
	g.locked(func() { g.status.phase, g.status.reason = "none", "" })
	if m.adopted {
		if err := m.continueIfOurs(ctx); err != nil {
			g.log.Warn("adopted guest not continued", "error", err)
		}
	}
	<-ctx.Done()
}

// endProtector closes what serves the mirrors. QEMU has ended, runs on for the
// next agent, or has no mirror any more.
func (g *guest) endProtector(m *machine) {
	g.mu.Lock()
	protector := m.protector
	m.protector = nil
	g.mu.Unlock()
	if protector == nil {
		return
	}
	g.repaired(nil)
	if err := protector.Close(); err != nil {
		g.log.Warn("protection did not end cleanly", "error", err)
	}
}

// protectWhile protects the guest until ctx ends.
func (g *guest) protectWhile(ctx context.Context, m *machine) {
	defer g.endAlarms(alarmProtection, alarmResync, alarmCheckpoint)
	protector, err := g.protectorOf(ctx, m)
	if err != nil {
		if ctx.Err() == nil {
			g.n.alarms.set(alarmProtection, g.name(), true, fmt.Sprintf("%s cannot be protected: %v", g.name(), err))
			<-ctx.Done()
		}
		return
	}
	g.n.alarms.set(alarmProtection, g.name(), false, "")
	defer start(ctx, func(ctx context.Context) { g.watchCheckpoints(ctx, protector) })()
	retry, mirrored, failed := firstRetry, g.keepMirror(ctx, m, protector), failures{}
	for ctx.Err() == nil {
		began := time.Now()
		if !mirrored {
			err = g.startMirror(ctx, m, protector)
			mirrored = err == nil
		}
		if mirrored {
			err = g.protectOnce(ctx, m, protector)
		}
		if errors.Is(err, snapshot.ErrHandedOver) || errors.Is(err, qmp.ErrClosed) && diesWithin(ctx, m.guard.Dead(), dyingBound) {
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		failed = g.countFailure(failed, err, time.Now())
		// Writes may have gone past a mirror that failed: never count the
		// replica again before everything was compared.
		mirrored = mirrored && !errors.Is(err, snapshot.ErrMirror)
		if err := g.detach(ctx); err != nil {
			g.log.Warn("the replica could not be outdated", "error", err)
		}
		g.noteLost(err)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
		retry = min(2*retry, lastRetry)
	}
}

// dyingBound is how long a QEMU may take from closing its monitor to its end.
const dyingBound = time.Second

// diesWithin says whether QEMU is gone, or goes now. Nothing was written then
// since its last acknowledged write: the replica on the peer is what it was, and
// an owner who outdates it for that could not hand the guest over any more.
func diesWithin(ctx context.Context, dead <-chan struct{}, bound time.Duration) bool {
	select {
	case <-dead:
		return true
	case <-time.After(bound):
	case <-ctx.Done():
	}
	return false
}

func (g *guest) noteLost(err error) {
	reason := "link lost"
	if err != nil {
		reason = oneLine(err.Error())
	}
	g.mu.Lock()
	before := g.status.reason
	g.mu.Unlock()
	g.locked(func() { g.status.phase, g.status.reason = "outdated", reason })
	if withoutNumbers(before) != withoutNumbers(reason) {
		g.n.journal.record(warning, "replication-lost", g.name(), "replication to the peer: "+reason)
	}
}

// withoutNumbers is the same for attempts that fail for the same reason.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
}

// protectOnce runs one link to the peer until it is lost.
func (g *guest) protectOnce(ctx context.Context, m *machine, p *snapshot.Protector) error {
	g.locked(func() { g.status.phase = "connecting" })
	if err := g.n.exchange.now(ctx); err != nil {
		return err
	}
	if err := g.sendBoot(ctx); err != nil {
		return err
	}
	dial := func(purpose string) snapshot.Dial {
		return func(ctx context.Context) (snapshot.Stream, replicator.Peer, error) {
			return g.openReplication(ctx, m, purpose)
		}
	}
	g.locked(func() { g.status.phase = "resync" })
	return p.Protect(ctx, dial(purposeDisks), dial(purposeCheckpoint), g.interval)
}

// openReplication opens one stream to the peer's replica.
func (g *guest) openReplication(ctx context.Context, m *machine, purpose string) (snapshot.Stream, replicator.Peer, error) {
	conn, err := g.n.members.dial(ctx, purpose, g.id, wire.Options{WriteTimeout: 10 * time.Second})
	if err != nil {
		return nil, replicator.Peer{}, err
	}
	var answer openAnswer
	g.mu.Lock()
	request := openRequest{Epoch: m.epoch, Disks: m.disks, From: g.here.From}
	g.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = peer.Ask(conn, request, &answer)
	if !stop() || err != nil {
		conn.Close()
		return nil, replicator.Peer{}, errors.Join(err, ctx.Err())
	}
	return conn, replicator.Peer{Replica: answer.Replica, Holds: answer.Holds}, nil
}

func (g *guest) interval() time.Duration { return g.spec().Protection.Interval() }

// protectorOf gives the machine's protector; an adopted one has it already.
func (g *guest) protectorOf(ctx context.Context, m *machine) (*snapshot.Protector, error) {
	if m.protector != nil {
		return m.protector, nil
	}
	sizes, err := m.diskSizes(ctx, g.spec())
	if err != nil {
		return nil, err
	}
	if err := g.writePlace(func(p *placeRecord) { p.Sizes = sizes }); err != nil {
		return nil, err
	}
	m.disks = sizes
	protector, err := g.newProtector(m)
	if err == nil {
		g.locked(func() { m.protector = protector })
	}
	return protector, err
}

// newProtector describes the machine to a protector, which listens at once.
func (g *guest) newProtector(m *machine) (*snapshot.Protector, error) {
	spec, outdated := g.spec(), g.detachedIn(m.epoch)
	mirror := &snapshot.Mirror{
		Monitor: m, Target: g.mirrorSocket(), Export: g.exportSocket(),
	}
	for i, d := range m.disks {
		mirror.Disks = append(mirror.Disks, snapshot.MirrorDisk{Name: d.Name, Size: d.Size, Top: topNode(i), Base: fmt.Sprintf("d%d", i)})
	}
	config := snapshot.ProtectorConfig{
		UUID: g.id, Epoch: m.epoch, Spec: specHash(spec), Counter: filepath.Join(g.layout.State, "sequence"),
		Map:    replicator.MapOptions{Path: g.mapFile(), Instance: fmt.Sprintf("%s %d", bootID(), m.guard.PID()), Load: m.adopted},
		Rate:   func() int64 { return int64(g.spec().Protection.ResyncRate) },
		Mirror: mirror, Machine: m, Room: g.room, Detached: func() bool { return g.detachedIn(m.epoch) }, Outdated: outdated, Degrade: g.detach, Synced: g.synced, Log: g.log,
		Share: g.n.guests.share, Turns: g.n.guests.turns, PID: m.guard.PID(), Noted: func(kind, text string) { g.n.journal.record(warning, kind, g.name(), text) },
	}
	if spec.Protection.Level == vm.ProtectResume {
		config.RAM, config.RAMSize = g.layout.RAM(), int64(spec.MemoryFile())
		config.Screen = m.screenOf(spec, g.layout)
	}
	return snapshot.NewProtector(config)
}

// synced is called when the replica has become complete.
func (g *guest) synced(ctx context.Context) error {
	if err := g.attach(ctx); err != nil {
		return err
	}
	g.locked(func() { g.status.phase, g.status.reason = "synced", "" })
	g.n.alarms.set(alarmResync, g.name(), false, "")
	g.mu.Lock()
	var protector *snapshot.Protector
	if g.machine != nil {
		protector = g.machine.protector
	}
	g.mu.Unlock()
	g.repaired(protector)
	text := fmt.Sprintf("the replica of %s is complete", g.name())
	if protector != nil {
		text += ": " + resyncText(protector.Disks())
	}
	g.n.journal.record(info, "replica-synced", g.name(), text)
	return nil
}

// void tells the peer that the guest was ended on purpose, so that no
// checkpoint of it is revived.
func (g *guest) void(ctx context.Context, m *machine, reason string) {
	g.mu.Lock()
	p := m.protector
	g.mu.Unlock()
	if p == nil {
		return
	}
	if err := p.Void(ctx, reason); err != nil {
		g.log.Info("checkpoints not voided; the guest's wish to be stopped keeps them from being resumed", "error", err)
	}
}
