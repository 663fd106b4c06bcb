package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/vm"
)

var errYielded = errors.New("another node owns the guest now")

// live is the guest's goroutine: it plays the role that the lease core gives
// this node, until ctx ends or the guest is removed.
func (g *guest) live(ctx context.Context) {
	defer g.closeStandby()
	defer g.endSpare("the agent ends")
	known := sync.OnceFunc(func() {
		close(g.looked)
		g.locked(func() { g.seen = true })
	})
	defer known()
	g.found = known
	for ctx.Err() == nil {
		g.mu.Lock()
		gone, owner := g.gone, g.owner
		g.mu.Unlock()
		switch {
		case gone:
			g.clean(ctx)
			return
		case owner == ha.NodeID(g.n.config.Name):
			g.own(ctx)
		default:
			g.standBy(ctx)
		}
	}
}

// role gives a context that ends when this node's ownership does not hold any
// more, or begins.
func (g *guest) role(ctx context.Context, owner bool) (context.Context, func()) {
	role, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := g.await(role, func() bool {
			return g.gone && g.machine == nil || (g.owner == ha.NodeID(g.n.config.Name)) != owner
		})
		if err == nil {
			cancel(errYielded)
		}
	}()
	return role, func() { cancel(nil); <-done }
}

// awaitWord waits, where a replica is open, until it is known what became of it:
// that this node owns the guest is told a moment before the takeover itself.
func (g *guest) awaitWord(ctx context.Context) error {
	return g.await(ctx, func() bool { return g.standby == nil || g.taking != nil || g.deadline != 0 })
}

// own is the owner's role: the guest is as the user wants it.
func (g *guest) own(ctx context.Context) {
	role, end := g.role(ctx, true)
	defer end()
	defer g.endSpare("the guest is this node's")
	if g.awaitWord(role) != nil {
		return
	}
	g.closeStandbyUnlessTaking()
	defer g.endAlarms(alarmStart) // whether it starts is the next owner's business
	for role.Err() == nil {
		m, err := g.bringUp(role)
		if err != nil {
			g.locked(func() { g.status.starting = false })
			if role.Err() != nil || errors.Is(err, errYielded) {
				return
			}
			g.failed(err)
			continue
		}
		g.attend(role, m)
	}
}

// bringUp waits until the guest shall and may run, and returns it running.
func (g *guest) bringUp(ctx context.Context) (*machine, error) {
	g.attempt = nil
	if g.spare == nil { // else it is known what is here
		if m, err := g.adopt(ctx); m != nil || err != nil {
			return m, err
		}
	}
	g.found()
	for {
		taking, err := g.waitAllowed(ctx)
		if err != nil {
			return nil, err
		}
		if taking != nil {
			if m, err := g.takeUp(ctx, *taking); m != nil || err != nil {
				return m, err
			}
		}
		if g.attempt != nil {
			g.endSpare("the guest is booted")
			return g.boot(ctx)
		}
	}
}

// waitAllowed waits for a lease, the planner's word, which becomes the attempt,
// and the end of a hold. A guest that was taken over and is not to run needs no
// word: its disks are taken.
func (g *guest) waitAllowed(ctx context.Context) (taking *ha.TakeOver, err error) {
	for {
		g.mu.Lock()
		hold, arm, plan, wanted := g.status.hold, g.arm, g.plan, g.wanted()
		changed := g.changed
		if taking = g.taking; taking != nil && taking.Epoch != g.epoch {
			taking = nil
		}
		g.arm = 0
		g.mu.Unlock()
		if arm != 0 { // no QEMU here that could run beyond a deadline
			g.n.decider.tell(ha.Armed{Guest: ha.GuestID(g.id), Arm: arm})
		}
		if taking != nil {
			if err := g.keepWish(*taking); err != nil {
				return nil, err
			}
		}
		_, leased := g.leased()
		wait := time.Until(hold)
		switch {
		case !leased || wait > 0 || g.n.down():
		case taking != nil && !wanted:
			return taking, nil
		case wanted && plan != nil && g.begin(plan):
			return taking, nil
		}
		if wait <= 0 {
			wait = time.Second // a lease that runs out wakes nobody
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// begin makes an allowed start the attempt, unless it was withdrawn, or is not wanted
// any more. Who wants the guest stopped from now on waits for it.
func (g *guest) begin(plan *recovery.Start) (begun bool) {
	g.locked(func() {
		if begun = g.plan == plan && g.wanted(); begun {
			g.plan, g.attempt, g.status.starting = nil, plan, true
		}
	})
	return begun
}

// keepWish makes the lease core's word about a guest that was taken over the
// record's: what the former owner's user asks for from now on, without knowing
// of this epoch, must not reach the guest here.
func (g *guest) keepWish(taking ha.TakeOver) error {
	g.mu.Lock()
	kept := g.record.Epoch >= taking.Epoch
	g.mu.Unlock()
	if kept {
		return nil
	}
	if err := g.write(func(r *guestRecord) { r.Run = taking.Run }); err != nil {
		return fmt.Errorf("take %s over: %w", g.name(), err)
	}
	return nil
}

// boot starts the guest from its disks. Writes that the peer does not see are
// allowed only once its replica is durably outdated.
func (g *guest) boot(ctx context.Context) (*machine, error) {
	spec := g.spec()
	// One of the level none, too: while no other voter has heard of the level, the
	// peer may take the guest over. Otherwise the answer comes at once.
	if err := g.detach(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	g.mu.Lock()
	epoch, onReplica := g.epoch, g.here.Replica
	g.mu.Unlock()
	if err := g.writePlace(func(p *placeRecord) { p.Epoch, p.Left = epoch, nil }); err != nil {
		return nil, err
	}
	if err := g.startsRunning(); err != nil {
		return nil, err
	}
	m, err := startMachine(ctx, g, epoch, vm.Options{Replica: onReplica})
	if err != nil {
		return nil, err
	}
	g.n.journal.record(info, "guest-started", spec.Name, fmt.Sprintf("%s started here, epoch %d", spec.Name, epoch))
	return m, nil
}

// detach makes the peer's replica durably outdated.
func (g *guest) detach(ctx context.Context) error {
	g.mu.Lock()
	epoch, detached := g.epoch, g.detached
	g.mu.Unlock()
	if detached {
		return nil
	}
	g.n.decider.tell(ha.ReplicaState{Guest: ha.GuestID(g.id), Epoch: epoch, InSync: false})
	err := g.await(ctx, func() bool { return g.detached && g.epoch == epoch })
	if err != nil {
		return fmt.Errorf("mark the peer's replica outdated: %w", err)
	}
	return nil
}

// detachedIn says whether the peer's replica is durably outdated in an epoch.
func (g *guest) detachedIn(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.detached && g.epoch == epoch
}

// attach makes the peer's replica count.
func (g *guest) attach(ctx context.Context) error {
	g.mu.Lock()
	epoch := g.epoch
	g.detached = false
	g.mu.Unlock()
	g.n.decider.tell(ha.ReplicaState{Guest: ha.GuestID(g.id), Epoch: epoch, InSync: true})
	return g.await(ctx, func() bool { return g.attached && g.epoch == epoch })
}

// failed notes why the guest does not run. The planner says when it is tried
// again; what was no attempt of its is held back here.
func (g *guest) failed(err error) {
	attempt := g.attempt
	switch {
	case attempt != nil && errors.Is(err, errUnleased):
		g.n.recoverer.tell(recovery.Ended{ID: ha.GuestID(g.id)})
		return
	case attempt != nil && attempt.How == recovery.Resume && errors.Is(err, syscall.ENOSPC):
		// A full disk, or memory, says nothing against the checkpoint: it is kept.
		g.n.alarms.set(alarmStart, g.name(), true, err.Error())
		g.locked(func() { g.status.failure, g.status.hold = err.Error(), time.Now().Add(time.Second) })
		g.n.recoverer.tell(recovery.Ended{ID: ha.GuestID(g.id)})
		return
	case attempt != nil && attempt.How == recovery.Resume: // it is booted next
		g.n.recoverer.tell(recovery.Failed{ID: attempt.ID, How: attempt.How, Reason: err.Error()})
		return
	}
	g.n.journal.record(warning, "start-failed", g.name(), err.Error())
	g.n.alarms.set(alarmStart, g.name(), true, err.Error())
	g.locked(func() {
		g.status.failure = err.Error()
		if attempt == nil {
			g.status.hold = time.Now().Add(5 * time.Second)
		}
	})
	if attempt != nil {
		g.n.recoverer.tell(recovery.Failed{ID: attempt.ID, How: attempt.How, Reason: err.Error()})
	}
}
