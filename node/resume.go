package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// resumeMachine loads a checkpoint into a new QEMU and lets it run if it ran.
// activate is called before that: from then on the checkpoint is used up.
func resumeMachine(ctx context.Context, g *guest, epoch uint64, from replica.Checkpoint, activate func(context.Context) (string, error)) (_ *machine, err error) {
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
	defer func() {
		if err != nil {
			m.killNow()
			<-m.ended()
			m.close()
		}
	}()
	if err := qmp.LoadDeviceState(ctx, l.monitor, bytes.NewReader(from.Blob)); err != nil {
		return nil, fmt.Errorf("load the device state: %w", err)
	}
	deadline, leased := g.leased()
	if !leased {
		return nil, errors.New("the lease ran out while the guest was being resumed")
	}
	if err := l.guard.Claim(ctx, epoch, deadline); err != nil {
		return nil, fmt.Errorf("put the guest under its lease: %w", err)
	}
	m.stopLease = g.keepLease(l.guard, epoch)
	if _, err := activate(ctx); err != nil {
		return nil, err
	}
	if from.RunState == "running" {
		if err := l.monitor.Execute(ctx, "cont", nil, nil); err != nil {
			return nil, fmt.Errorf("let the guest go on: %w", err)
		}
	}
	if err := qmp.AnnounceSelf(ctx, l.monitor); err != nil {
		g.log.Info("the guest's place was not announced to the network", "error", err)
	}
	return m, nil
}
