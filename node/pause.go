package node

import (
	"context"
	"errors"
	"fmt"

	"vmctl/snapshot/replica"
	"vmctl/vm"
)

// setPaused pauses a running guest, or lets it go on. The peer hears of it first: a
// takeover a moment later is from a checkpoint of before.
func (n *Node) setPaused(ctx context.Context, g *guest, paused bool) (warnings []string, err error) {
	word, act := "unpause", (*machine).Unpause
	if paused {
		word, act = "pause", (*machine).Pause
	}
	g.mu.Lock()
	before, protected := g.record.Paused, g.record.Spec.Protection.Level != vm.ProtectNone
	g.mu.Unlock()
	err = n.onRunning(g, word, func(m *machine) error {
		if err := g.write(func(r *guestRecord) { r.Paused = &paused }); err != nil {
			return err
		}
		if protected && n.compareNow(ctx) != nil {
			warnings = append(warnings, fmt.Sprintf("the peer has not heard of the %s yet: if this host dies now, %s goes on there as its last checkpoint was", word, g.name()))
		}
		if err := act(m, ctx); err != nil {
			return errors.Join(err, g.write(func(r *guestRecord) { r.Paused = before }))
		}
		return nil
	})
	return warnings, err
}

// compareNow has both nodes know the same, if the peer is there.
func (n *Node) compareNow(ctx context.Context) error {
	if !n.peerHeard() {
		return errors.New("the peer is not heard")
	}
	ctx, cancel := context.WithTimeout(ctx, settleBound)
	defer cancel()
	return n.exchange.now(ctx)
}

// stateAfter is the run state that a guest resumed from a checkpoint is to have, in
// QEMU's words.
func (g *guest) stateAfter(from replica.Checkpoint) string {
	g.mu.Lock()
	paused := g.record.Paused
	g.mu.Unlock()
	switch {
	case paused == nil:
		return from.RunState
	case *paused:
		return string(vm.StatePaused)
	}
	return string(vm.StateRunning)
}

// startsRunning takes the word of a guest that is booted back.
func (g *guest) startsRunning() error {
	g.mu.Lock()
	said := g.record.Paused != nil
	g.mu.Unlock()
	if !said {
		return nil
	}
	return g.write(func(r *guestRecord) { r.Paused = nil })
}

// foundRunning is for an adopted guest: an agent that ended between the word and its
// carrying out has told nobody that it was done.
func (g *guest) foundRunning(ctx context.Context, m *machine) error {
	g.mu.Lock()
	paused := g.record.Paused != nil && *g.record.Paused
	g.mu.Unlock()
	if !paused {
		return nil
	}
	if state, err := m.RunState(ctx); err != nil || state != vm.StateRunning {
		return err
	}
	return g.startsRunning()
}
