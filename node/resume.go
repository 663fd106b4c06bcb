package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/snapshot"
	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/disk"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// takeUp makes this node's replica the guest's own, after the core has made
// this node the owner. The machine is nil if the guest was not resumed: it is
// not to run, or to be booted.
func (g *guest) takeUp(ctx context.Context, taking ha.TakeOver) (m *machine, err error) {
	began, name := time.Now(), g.name()
	var how string
	var failure error
	if g.attempt != nil && g.attempt.How == recovery.Resume {
		m, how, failure = g.fromReplica(ctx, taking)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(failure, syscall.ENOSPC) {
		return nil, failure // which says nothing against the checkpoint: it is kept
	}
	if m == nil {
		g.endSpare("the guest is not resumed")
		if err := g.takeDisks(ctx, taking.Epoch); err != nil {
			return nil, err
		}
	}
	g.locked(func() { g.taking = nil })
	g.n.decider.tell(ha.TakenOver{Guest: ha.GuestID(g.id), Epoch: taking.Epoch})
	switch {
	case m != nil:
		g.n.journal.record(warning, "guest-resumed", name, fmt.Sprintf("%s resumed here in %d ms %s", name, time.Since(began).Milliseconds(), how))
	case failure != nil:
		return nil, failure
	case g.attempt == nil:
		g.n.journal.record(warning, "guest-taken", name, fmt.Sprintf("%s is this node's now, epoch %d; it is not to run", name, taking.Epoch))
	}
	return m, nil
}

// fromReplica resumes the guest from its last checkpoint, or if QEMU does not
// load that from the one before. It says how in words.
func (g *guest) fromReplica(ctx context.Context, taking ha.TakeOver) (*machine, string, error) {
	standby, err := g.openStandby(ctx)
	if err != nil {
		return nil, "", err
	}
	checkpoint, err := standby.TakeOver(ctx, taking.Epoch)
	if err != nil {
		return nil, "", err
	}
	err = g.writePlace(func(p *placeRecord) {
		p.Replica, p.Epoch, p.Resuming = true, taking.Epoch, g.stateAfter(checkpoint)
		p.From, p.Left = momentOf(checkpoint), nil
	})
	if err != nil {
		return nil, "", err
	}
	m, how, err := g.fromCheckpoint(ctx, taking.Epoch, checkpoint, standby)
	if errors.Is(err, errState) && ctx.Err() == nil {
		if full := g.memoryFull(checkpoint); full != nil {
			return nil, "", fmt.Errorf("%w: %w", full, err)
		}
		m, how, err = g.fromBefore(ctx, taking.Epoch, checkpoint, standby, err)
	}
	if err != nil {
		return nil, "", err
	}
	g.resumed()
	return m, how, nil
}

// memoryFull says that there is no room for what a checkpoint's guest has not touched
// yet of its memory. A QEMU that loads its state, and writes to such a page, dies then:
// the one before would fare no better.
func (g *guest) memoryFull(from replica.Checkpoint) error {
	taken, err := memory.Allocated(from.RAMPath)
	if err != nil {
		return nil
	}
	free, err := disk.Free(g.n.config.RAMDir)
	if more := from.RAMSize - taken; err == nil && free < more {
		return fmt.Errorf("resume %s: its memory may take %d MiB more, %d MiB are free at %s: %w", g.name(), more>>20, free>>20, g.n.config.RAMDir, syscall.ENOSPC)
	}
	return nil
}

// resumed lets go of a replica that has become the guest. An agent that dies
// before this is stored finds the guest as halfway still; see adoptHalfway.
func (g *guest) resumed() {
	g.closeStandby()
	if err := g.writePlace(func(p *placeRecord) { p.Prepared, p.Resuming = 0, "" }); err != nil {
		g.log.Warn("that the guest was resumed is not stored; the next agent will find out", "error", err)
	}
}

// fromCheckpoint resumes the guest in the standby that waits, or if that fails
// in a QEMU started for it.
func (g *guest) fromCheckpoint(ctx context.Context, epoch uint64, checkpoint replica.Checkpoint, standby *snapshot.Standby) (m *machine, how string, err error) {
	from := fmt.Sprintf("from checkpoint %d, epoch %d, ", checkpoint.Sequence, epoch)
	m, unspared := g.bySpare(ctx, epoch, checkpoint, standby.Activate)
	if unspared == nil {
		return m, from + "by its standby", nil
	}
	if ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	if !errors.Is(unspared, errNoSpare) {
		g.n.journal.record(warning, "standby-failed", g.name(), fmt.Sprintf("%s is resumed by a QEMU started anew: %s", g.name(), oneLine(unspared.Error())))
	}
	// Unless the guest may have run already, the checkpoint is still whole.
	if checkpoint, err = standby.TakeOver(ctx, epoch); err != nil {
		return nil, "", errors.Join(unspared, err)
	}
	if m, err = resumeMachine(ctx, g, epoch, checkpoint, standby.Activate); err != nil {
		return nil, "", err
	}
	return m, from + "by a QEMU started for it: " + oneLine(unspared.Error()), nil
}

// fromBefore resumes the guest from the checkpoint before the one that failed.
// The disks are rolled back only once that has been loaded: those that are booted
// if it is not are the newest.
func (g *guest) fromBefore(ctx context.Context, epoch uint64, last replica.Checkpoint, standby *snapshot.Standby, failed error) (m *machine, how string, err error) {
	if err := standby.StepBack(ctx); err != nil {
		return nil, "", errors.Join(failed, err)
	}
	before, err := standby.TakeOver(ctx, epoch)
	if err != nil {
		return nil, "", errors.Join(failed, err)
	}
	why := fmt.Sprintf("checkpoint %d was not usable: %s", last.Sequence, oneLine(failed.Error()))
	if err := g.writePlace(func(p *placeRecord) { p.From = momentOf(before) }); err != nil {
		return nil, "", errors.Join(failed, err)
	}
	g.n.journal.record(warning, "checkpoint-failed", g.name(), fmt.Sprintf("%s is resumed from checkpoint %d, the one before the last: %s", g.name(), before.Sequence, why))
	if m, err = resumeMachine(ctx, g, epoch, before, standby.Activate); err != nil {
		return nil, "", fmt.Errorf("checkpoint %d: %w; before it checkpoint %d: %w", last.Sequence, failed, before.Sequence, err)
	}
	return m, fmt.Sprintf("from checkpoint %d, the one before the last, epoch %d, by a QEMU started for it: %s", before.Sequence, epoch, why), nil
}

// errState: QEMU does not take the checkpoint's state.
var errState = errors.New("load the device state")

// takeDisks makes the replica's disks this guest's own, as the last write left
// them.
func (g *guest) takeDisks(ctx context.Context, epoch uint64) error {
	standby, err := g.openStandby(ctx)
	if err != nil {
		return err
	}
	if err := standby.TakeOverDisks(ctx, epoch); err != nil && !errors.Is(err, replica.ErrTaken) {
		return err
	}
	g.closeStandby()
	g.tellUnflushed()
	return g.writePlace(func(p *placeRecord) {
		p.From, p.Left = &moment{Epoch: p.Prepared}, nil
		p.Replica, p.Epoch, p.Prepared, p.Resuming = true, epoch, 0, ""
	})
}

// tellUnflushed says that the disks taken may lack something: they were written to
// by an owner, and this host was started anew before they became the guest's. What
// the owner wrote is flushed here once a second, and a loss of power takes the rest.
func (g *guest) tellUnflushed() {
	g.mu.Lock()
	here := g.here
	g.mu.Unlock()
	if here.BootID == "" || here.BootID == bootID() {
		return
	}
	g.n.journal.record(warning, "disks-unflushed", g.name(), fmt.Sprintf(
		"%s goes on from the disks that its replica had here before this host was started anew: if the host lost power then, up to a second of what was written last is not in them", g.name()))
}

// resumeMachine loads a checkpoint into a new QEMU and lets it run if it ran.
// activate is called before that: from then on the checkpoint is used up.
func resumeMachine(ctx context.Context, g *guest, epoch uint64, from replica.Checkpoint, activate func(context.Context) (string, error)) (*machine, error) {
	request, err := g.request(epoch, vm.Options{Incoming: true, Replica: true})
	if err != nil {
		return nil, err
	}
	request.Layout.RAMFile = from.RAMPath
	// Until it is claimed it waits for its state and executes nothing.
	request.Epoch, request.DeadlineNS = epoch-1, guard.Forever
	var l launch
	m := &machine{epoch: epoch}
	if m.Guest, err = vm.Start(ctx, g.n.platform(&l), request); err != nil {
		return nil, err
	}
	m.guard, m.monitor = l.guard, l.monitor
	if err := m.resume(ctx, g, epoch, from, activate); err != nil {
		m.killNow()
		<-m.ended()
		m.close()
		return nil, err
	}
	return m, nil
}

// resume loads a checkpoint into a QEMU that waits for it, puts it under the
// lease, and lets it run if it ran.
func (m *machine) resume(ctx context.Context, g *guest, epoch uint64, from replica.Checkpoint, activate func(context.Context) (string, error)) error {
	state, err := withScreen(g.spec(), from)
	if err != nil {
		return err
	}
	if err := qmp.LoadDeviceState(ctx, m.monitor, bytes.NewReader(state)); err != nil {
		return fmt.Errorf("%w: %w", errState, err)
	}
	deadline, leased := g.leased()
	if !leased {
		return errors.New("the lease ran out while the guest was being resumed")
	}
	m.epoch = epoch
	if err := m.guard.Claim(ctx, epoch, deadline); err != nil {
		return fmt.Errorf("put the guest under its lease: %w", err)
	}
	m.stopLease = g.keepLease(m.guard, epoch)
	if err := vm.Connect(vm.HostNetwork{}, g.spec()); err != nil {
		return err
	}
	if _, err := activate(ctx); err != nil {
		return err
	}
	if g.stateAfter(from) == string(vm.StateRunning) {
		if err := m.monitor.Execute(ctx, "cont", nil, nil); err != nil {
			return fmt.Errorf("let the guest go on: %w", err)
		}
	}
	if err := qmp.AnnounceSelf(ctx, m.monitor); err != nil {
		g.log.Info("the guest's place was not announced to the network", "error", err)
	}
	return nil
}
