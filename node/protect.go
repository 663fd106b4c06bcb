package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/snapshot"
	"vmctl/snapshot/replicator"
	"vmctl/vm"
)

// Back-off between two attempts to reach the peer's replica.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// keepProtected keeps the running guest's replica on the peer up to date, as
// long as the guest runs here.
func (g *guest) keepProtected(ctx context.Context, m *machine) {
	if g.spec().Protection.Level == vm.ProtectNone {
		g.settleMirror(ctx, m)
		return
	}
	protector, err := g.protectorOf(ctx, m)
	if err != nil {
		g.n.alarms.set("protection-failed", g.name(), true, fmt.Sprintf("%s cannot be protected: %v", g.name(), err))
		<-ctx.Done()
		return
	}
	defer func() {
		g.locked(func() { m.protector = nil })
		if err := protector.Close(); err != nil {
			g.log.Warn("protection did not end cleanly", "error", err)
		}
	}()
	retry, mirror := firstRetry, false
	for ctx.Err() == nil {
		if !mirror {
			err = g.startMirror(ctx, m, protector)
			mirror = err == nil
		}
		if err == nil {
			began := time.Now()
			err = g.protectOnce(ctx, m, protector)
			if time.Since(began) > lastRetry {
				retry = firstRetry
			}
		}
		if ctx.Err() != nil {
			break
		}
		// Writes may have gone past a mirror that failed: never count the
		// replica again before everything was compared.
		if errors.Is(err, snapshot.ErrMirror) {
			mirror = false
		}
		if err := g.detach(ctx); err != nil {
			g.log.Warn("the replica could not be outdated", "error", err)
		}
		g.noteLost(err)
		err = nil
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
		retry = min(2*retry, lastRetry)
	}
}

// startMirror joins QEMU's disks to the replicator, which listens already. For
// a moment no mirror carries the guest's writes: the replica is outdated first.
func (g *guest) startMirror(ctx context.Context, m *machine, p *snapshot.Protector) error {
	if m.adopted {
		if err := m.continueIfOurs(ctx); err != nil {
			return err
		}
	}
	if err := g.detach(ctx); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return p.StartMirror(bound)
}

// settleMirror takes down what an earlier protection of an adopted guest left.
func (g *guest) settleMirror(ctx context.Context, m *machine) {
	if !m.adopted {
		return
	}
	if err := m.continueIfOurs(ctx); err != nil {
		g.log.Warn("adopted guest not continued", "error", err)
	}
}

func (g *guest) noteLost(err error) {
	reason := "link lost"
	if err != nil {
		reason = err.Error()
	}
	g.mu.Lock()
	before := g.status.reason
	g.mu.Unlock()
	g.locked(func() { g.status.phase, g.status.reason = "outdated", reason })
	if before != reason {
		g.n.journal.record(warning, "replication-lost", g.name(), "replication to the peer: "+reason)
	}
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
		return func(ctx context.Context) (snapshot.Stream, error) { return g.openReplication(ctx, m, purpose) }
	}
	g.locked(func() { g.status.phase = "resync" })
	return p.Protect(ctx, dial(purposeDisks), dial(purposeCheckpoint), g.interval)
}

// openReplication opens one stream to the peer's replica.
func (g *guest) openReplication(ctx context.Context, m *machine, purpose string) (snapshot.Stream, error) {
	conn, err := g.n.members.dial(ctx, purpose, g.id, wire.Options{WriteTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	request := openRequest{Epoch: m.epoch, Disks: m.disks}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = peer.Ask(conn, request, &struct{}{})
	if !stop() || err != nil {
		conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	return conn, nil
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
	spec := g.spec()
	g.mu.Lock()
	outdated := g.detached && g.epoch == m.epoch
	g.mu.Unlock()
	mirror := &snapshot.Mirror{
		Monitor: m, Target: filepath.Join(g.layout.Runtime, "mirror.sock"), Export: filepath.Join(g.layout.Runtime, "nbd.sock"),
	}
	for i, d := range m.disks {
		mirror.Disks = append(mirror.Disks, snapshot.MirrorDisk{Name: d.Name, Size: d.Size, Top: fmt.Sprintf("top%d", i), Base: fmt.Sprintf("d%d", i)})
	}
	config := snapshot.ProtectorConfig{
		UUID: g.id, Epoch: m.epoch, Spec: specHash(spec), Counter: filepath.Join(g.layout.State, "sequence"),
		Mirror: mirror, Machine: m, Outdated: outdated, Degrade: g.detach, Synced: g.synced, Log: g.log,
	}
	if spec.Protection.Level == vm.ProtectResume {
		config.RAM, config.RAMSize = g.layout.RAM(), int64(spec.Memory)
	}
	return snapshot.NewProtector(config)
}

// synced is called when the replica has become complete.
func (g *guest) synced(ctx context.Context) error {
	if err := g.attach(ctx); err != nil {
		return err
	}
	g.locked(func() { g.status.phase, g.status.reason = "synced", "" })
	g.n.journal.record(info, "replica-synced", g.name(), fmt.Sprintf("the replica of %s is complete", g.name()))
	return nil
}

// specHash names what device state belongs to: the parts of a spec that change
// the machine.
func specHash(spec vm.Spec) []byte {
	spec.Protection, spec.Restart, spec.Autostart = vm.Protection{}, vm.Restart{}, false
	data, err := msgpack.Marshal(spec)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(data)
	return sum[:]
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

// replicaView is what people see of the replica.
func (g *guest) replicaView(p *snapshot.Protector) (phase string, progress float64) {
	g.mu.Lock()
	phase = g.status.phase
	g.mu.Unlock()
	if p == nil || phase != "resync" {
		return phase, 0
	}
	state := p.Disks()
	if state.Phase == replicator.Detached || state.Total == 0 {
		return phase, 0
	}
	return phase, float64(state.Compared) / float64(state.Total)
}
