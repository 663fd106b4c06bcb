package node

import (
	"context"
	"errors"
	"fmt"

	"vmctl/ha"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// adoptHalfway takes over a QEMU that an earlier agent was resuming the guest in
// when it ended. Before the replica was activated the disks are not yet those of
// the loaded memory: it must never run, and is ended; the takeover begins anew.
// After that it is the guest, and stands still only if that agent did not get to
// let it go on: nobody else can have stopped it.
func (g *guest) adoptHalfway(ctx context.Context, client *guard.Client, status guard.Status, was string) (*machine, error) {
	activated, err := g.activated(ctx)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("adopt the guest's process: %w", err)
	}
	if !activated {
		return nil, g.endFound(client, errors.New("its takeover was not finished, and it has executed nothing"))
	}
	m, err := g.adoptRunning(ctx, client, status)
	if err != nil {
		client.Close()
		return nil, err
	}
	if err := m.goOn(ctx, was); err != nil {
		m.close()
		return nil, fmt.Errorf("let the guest go on where its takeover was cut off: %w", err)
	}
	g.resumed()
	return m, nil
}

// activated says whether the replica has become the guest's own.
func (g *guest) activated(ctx context.Context) (bool, error) {
	standby, err := g.openStandby(ctx)
	if errors.Is(err, errNoReplica) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	status, err := standby.Status(ctx)
	return err == nil && !status.Memory, err
}

// goOn lets a guest run that is to, and does not.
func (m *machine) goOn(ctx context.Context, was string) error {
	now, err := qmp.QueryStatus(ctx, m.monitor)
	if err != nil || now.Running || was != "running" {
		return err
	}
	return m.Execute(ctx, "cont", nil, nil)
}

// settleTaking tells the lease core that an adopted guest is taken over: the
// agent that took it may have died before it was stored.
func (g *guest) settleTaking(ctx context.Context, m *machine) {
	pending := func() bool { return g.taking != nil && g.taking.Epoch == m.epoch }
	if !m.adopted || g.await(ctx, pending) != nil {
		return
	}
	g.locked(func() { g.taking = nil })
	g.n.decider.tell(ha.TakenOver{Guest: ha.GuestID(g.id), Epoch: m.epoch})
}
