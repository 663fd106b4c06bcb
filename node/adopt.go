package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// adopt takes over the guest's process of an earlier agent; nil if there is
// none, or if what there was has ended.
func (g *guest) adopt(ctx context.Context) (*machine, error) {
	client, err := g.attachGuard(ctx)
	if errors.Is(err, guard.ErrNoGuard) {
		return nil, nil
	}
	if errors.Is(err, guard.ErrGone) {
		g.sweep()
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("adopt the guest's process: %w", err)
	}
	bound, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	status, err := client.Status(bound)
	g.mu.Lock()
	epoch := g.epoch
	g.mu.Unlock()
	if err == nil && status.Standby {
		err = errors.New("it waited for a takeover and executed nothing")
	} else if err == nil && status.Epoch != epoch {
		err = fmt.Errorf("it runs under epoch %d, the guest is at %d", status.Epoch, epoch)
	}
	if err != nil {
		return nil, g.endFound(client, err)
	}
	g.mu.Lock()
	here := g.here
	g.mu.Unlock()
	if here.Resuming != "" && here.Epoch == status.Epoch {
		return g.adoptHalfway(ctx, client, status, here.Resuming)
	}
	m, err := g.adoptRunning(ctx, client, status)
	if err != nil {
		client.Close()
		return nil, err
	}
	return m, nil
}

// endFound ends a process that an earlier agent left and that must not run on.
func (g *guest) endFound(client *guard.Client, why error) error {
	g.n.journal.record(warning, "process-ended", g.name(), fmt.Sprintf("a process of the guest was found and ended: %v", why))
	if err := client.KillNow(); err != nil {
		return err
	}
	<-client.Done()
	client.Close()
	return nil
}

// endForeign ends a process of the guest that an earlier agent left, on a node
// that does not own the guest any more. It does not give up on a guard that does
// not answer: behind it QEMU may run.
func (g *guest) endForeign(ctx context.Context) {
	for told := false; ; told = true {
		err := g.tryEndForeign(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !told {
			g.n.journal.record(alarm, "process-stays", g.name(), fmt.Sprintf("a process of %s may run on here although node %s owns it; it could not be ended: %v", g.name(), g.ownerName(), err))
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// tryEndForeign returns nil once no process of the guest is here.
func (g *guest) tryEndForeign(ctx context.Context) error {
	client, err := g.attachGuard(ctx)
	switch {
	case errors.Is(err, guard.ErrNoGuard):
		return nil
	case errors.Is(err, guard.ErrGone): // it ended while no agent was here
		g.sweep()
		return nil
	case err != nil:
		return err
	}
	defer client.Close()
	bound, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	status, statusErr := client.Status(bound)
	if err := client.KillNow(); err != nil {
		return err
	}
	select {
	case <-client.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if statusErr != nil || !status.Standby { // a standby of an earlier agent ran no guest
		g.n.journal.record(warning, "process-ended", g.name(), fmt.Sprintf("a process of %s ran on here and was ended: node %s owns it", g.name(), g.ownerName()))
	}
	g.sweep()
	return nil
}

// answerBound is how long an agent that has just started waits for a guard: well
// within the lease that its guest may still have.
const answerBound = time.Second

// attachGuard connects to the guard that an earlier agent left. One that does not
// answer will not freeze its guest at the end of the lease either, and nobody else
// holds QEMU now: both are ended, and it is guard.ErrGone.
func (g *guest) attachGuard(ctx context.Context) (*guard.Client, error) {
	bound, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	client, err := guard.Attach(bound, g.layout.GuardConfig())
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return client, err
	}
	g.n.journal.record(alarm, "guard-stuck", g.name(), fmt.Sprintf("the guard of %s does not answer and is ended with its guest: it would not keep to a lease", g.name()))
	bound, cancel = context.WithTimeout(ctx, answerBound)
	defer cancel()
	if err := guard.EndStuck(bound, g.layout.GuardConfig()); err != nil {
		return nil, err
	}
	return nil, guard.ErrGone
}

// adoptRunning listens on the mirrors' socket before it speaks QMP: QEMU may
// hang until the replicator is back. A frozen guest is thawed by its lease.
func (g *guest) adoptRunning(ctx context.Context, client *guard.Client, status guard.Status) (*machine, error) {
	if status.Frozen {
		if err := g.thaw(ctx, client, status.Epoch); err != nil {
			return nil, err
		}
	}
	m := &machine{epoch: status.Epoch, adopted: true, guard: client, stopLease: g.keepLease(client, status.Epoch)}
	l := launch{}
	if err := g.listenFirst(m); err != nil {
		m.release()
		return nil, err
	}
	var err error
	if m.Guest, err = vm.Adopt(ctx, g.n.platform(&l), g.spec(), g.layout, wardenOf(client)); err != nil {
		m.release()
		return nil, err
	}
	m.monitor = l.monitor
	if err := g.foundRunning(ctx, m); err != nil {
		g.log.Warn("it is not known whether the guest is paused as its user said", "error", err)
	}
	if _, err := qmp.RemoveStaleFDs(ctx, m.monitor); err != nil {
		g.log.Warn("files of an earlier agent stay with QEMU", "error", err)
	}
	g.n.journal.record(info, "guest-adopted", g.name(), fmt.Sprintf("%s runs on, adopted by this agent", g.name()))
	return m, nil
}

// listenFirst serves the mirrors of a guest that has any.
func (g *guest) listenFirst(m *machine) (err error) {
	g.mu.Lock()
	sizes := g.here.Sizes
	g.mu.Unlock()
	if g.spec().Protection.Level == vm.ProtectNone || len(sizes) != len(g.spec().Disks) {
		return nil
	}
	m.disks = sizes
	m.protector, err = g.newProtector(m)
	return err
}

// thaw waits for a lease of the epoch and gives it to the guard.
func (g *guest) thaw(ctx context.Context, client *guard.Client, epoch uint64) error {
	for {
		deadline, leased := g.leased()
		if leased {
			if err := client.Renew(ctx, epoch, deadline); err == nil {
				return nil
			} else if errors.Is(err, guard.ErrGone) {
				return err
			}
		}
		g.mu.Lock()
		changed, still := g.changed, g.epoch == epoch && g.owner == ha.NodeID(g.n.config.Name)
		g.mu.Unlock()
		if !still {
			return errYielded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// continueIfOurs continues a guest that an earlier agent stopped for a
// checkpoint and did not continue; the guard knows.
func (m *machine) continueIfOurs(ctx context.Context) error {
	status, err := m.guard.Status(ctx)
	if err != nil || status.Pause == 0 {
		return err
	}
	_, err = m.guard.EndPause(ctx, status.Pause)
	if err != nil {
		return err
	}
	return m.Execute(ctx, "cont", nil, nil)
}
