package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/ha"
	"vmctl/vm"
)

// handBound bounds how long a guest may take to be handed over.
const handBound = time.Minute

// handOver gives a running guest to the peer, with its memory where it has
// checkpoints, by a clean shutdown and a boot there where it has not.
func (n *Node) handOver(ctx context.Context, g *guest) error {
	g.op.Lock()
	defer g.op.Unlock()
	ctx, cancel := context.WithTimeout(ctx, handBound)
	defer cancel()
	m, level := g.current(), g.spec().Protection.Level
	g.mu.Lock()
	synced := g.status.phase == "synced"
	g.mu.Unlock()
	switch {
	case level == vm.ProtectNone:
		return errors.New("it is not protected: the peer has nothing of it")
	case m == nil:
		return errors.New("it does not run")
	case n.neighbour.refusal() != nil: // as it is known here; askPeer asks
		return n.neighbour.refusal()
	case !synced:
		return errors.New("its replica is not complete")
	}
	began := time.Now()
	var err error
	if level == vm.ProtectResume {
		err = n.handOverLive(ctx, g, m)
	} else {
		err = n.handOverStopped(ctx, g, m)
	}
	if err != nil {
		return err
	}
	n.journal.record(info, "guest-handed-over", g.name(), fmt.Sprintf("%s was handed over to %s in %d ms", g.name(), g.ownerName(), time.Since(began).Milliseconds()))
	return nil
}

// give makes the peer the owner of a guest that stands still, or is off, since
// then, and of which the peer has everything.
func (n *Node) give(ctx context.Context, g *guest, since moment) error {
	err := n.decider.request(ctx, func(id uint64) ha.Event { return ha.Handover{ID: id, Guest: ha.GuestID(g.id)} })
	if err == nil {
		g.left(since)
	}
	return err
}

// askPeer says whether the peer takes guests now, by its own word: that it went
// into maintenance may not have been heard yet.
func (n *Node) askPeer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	if err := n.exchange.now(ctx); err != nil {
		return fmt.Errorf("the peer does not answer: %w", err)
	}
	return n.neighbour.refusal()
}

// askBound bounds a question to the peer.
const askBound = 3 * time.Second

func (n *Node) handOverLive(ctx context.Context, g *guest, m *machine) error {
	g.mu.Lock()
	protector := m.protector
	g.mu.Unlock()
	if protector == nil {
		return errors.New("its protection is being changed")
	}
	give := func(ctx context.Context, sequence uint64) error {
		return n.give(ctx, g, moment{Epoch: m.epoch, Sequence: sequence})
	}
	if err := protector.HandOver(ctx, give); err != nil {
		return err
	}
	return g.await(ctx, func() bool { return g.machine == nil })
}

// handOverStopped shuts the guest down first. The wish that it runs stands, so
// the peer boots it; while the machine goes down it is not started again here.
func (n *Node) handOverStopped(ctx context.Context, g *guest, m *machine) error {
	g.locked(func() { g.handing, g.status.hold = true, time.Now().Add(handBound) })
	ended, err := m.Shutdown(ctx, handBound/2)
	if err == nil {
		err = g.await(ctx, func() bool { return g.machine == nil })
	}
	if err == nil {
		n.log.Info("guest is down to be handed over", "vm", g.name(), "ended", ended)
		err = n.give(ctx, g, moment{Epoch: m.epoch})
	}
	g.locked(func() {
		g.handing = false
		if err != nil { // it comes back here
			g.status.hold = time.Time{}
		}
	})
	return err
}
