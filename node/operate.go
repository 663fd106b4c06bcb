package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/node/api"
	"vmctl/snapshot/replica"
	"vmctl/vm"
)

// Bounds of operator commands.
const (
	defaultStop = time.Minute
	startBound  = time.Minute
)

// Act implements api.Operator.
func (n *Node) Act(ctx context.Context, name string, verb api.Verb, option api.Option) (api.VM, error) {
	g, err := n.ownGuest(name)
	if err != nil {
		return api.VM{}, err
	}
	g.op.Lock()
	defer g.op.Unlock()
	var warnings []string
	acts := map[api.Verb]func(context.Context, *guest, time.Duration) error{
		api.Start: func(ctx context.Context, g *guest, _ time.Duration) (err error) {
			warnings, err = n.start(ctx, g, option.Force)
			return err
		},
		api.Stop: n.stop, api.Kill: n.kill, api.Reset: n.reset,
		api.Pause: func(ctx context.Context, g *guest, _ time.Duration) (err error) {
			warnings, err = n.setPaused(ctx, g, true)
			return err
		},
		api.Unpause: func(ctx context.Context, g *guest, _ time.Duration) (err error) {
			warnings, err = n.setPaused(ctx, g, false)
			return err
		},
	}
	if err := acts[verb](ctx, g, option.Bound); err != nil {
		return api.VM{}, specError(err)
	}
	v := n.view(ctx, g)
	v.Warnings = warnings
	return v, nil
}

// start wants the guest to run and waits until it does.
func (n *Node) start(ctx context.Context, g *guest, force bool) (warnings []string, err error) {
	if g.running() {
		return nil, api.Errorf(api.Conflict, "start %s: it is running", g.name())
	}
	if warnings, err = n.admitAlone("start", g.spec(), force); err != nil {
		return nil, err
	}
	if err := n.refusesGuests("start", g.name()); err != nil {
		return nil, err
	}
	if err := n.leaseable(ctx, g); err != nil {
		return nil, err
	}
	// What follows the end before is decided by the wish of then, not by this one.
	if err := g.await(ctx, func() bool { return !g.status.ending }); err != nil {
		return nil, err
	}
	g.mu.Lock()
	wanted := g.wanted()
	g.mu.Unlock()
	g.locked(func() { g.status.hold, g.status.restarts, g.status.failure = time.Time{}, nil, "" })
	n.recoverer.tell(recovery.Ordered{ID: ha.GuestID(g.id)})
	if err := g.setRun(ctx, true); err != nil {
		return nil, err
	}
	return warnings, n.awaitUp(ctx, g, wanted)
}

// awaitUp waits until a guest that the user started runs. The wish of one that
// failed is taken back, unless it stood before: then it is tried on.
func (n *Node) awaitUp(ctx context.Context, g *guest, wanted bool) error {
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	var failure string
	err := g.await(ctx, func() bool { failure = g.status.failure; return g.machine != nil || failure != "" })
	if err == nil && failure == "" {
		return nil
	}
	if failure == "" {
		failure = "it was not up after " + startBound.String()
	}
	if !wanted {
		if err := g.setRun(context.WithoutCancel(ctx), false); err != nil {
			n.log.Warn("a failed start is not taken back", "error", err)
		}
	}
	return api.Errorf(api.Failed, "start %s: %s", g.name(), failure)
}

// leaseable waits a moment for a lease and says what is missing.
func (n *Node) leaseable(ctx context.Context, g *guest) error {
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, ok := g.leased(); ok {
			return nil
		}
		select {
		case <-ticker.C:
		case <-wait.Done():
			g.mu.Lock()
			reason := g.verdict.Reason
			g.mu.Unlock()
			return api.Errorf(api.Unsafe, "start %s: neither the peer nor the witness confirms that this node may run it: %s", g.name(), reason).
				WithHint("See `vmctl cluster status` and `vmctl ha why %s`.", g.name())
		}
	}
}

// stop wants the guest to be stopped. The wish is stored first: if this host
// dies meanwhile, the peer does not revive the guest.
func (n *Node) stop(ctx context.Context, g *guest, bound time.Duration) error {
	if bound == 0 {
		bound = defaultStop
	}
	return n.bringDown(ctx, g, "stop", func(m *machine) error {
		ended, err := m.Shutdown(ctx, bound)
		if err == nil && ended != vm.EndedByGuest {
			n.journal.record(warning, "guest-stopped-hard", g.name(), fmt.Sprintf("%s did not shut itself down within %s: %s", g.name(), bound, ended))
		}
		return err
	})
}

func (n *Node) kill(ctx context.Context, g *guest, _ time.Duration) error {
	return n.bringDown(ctx, g, "kill", func(m *machine) error { return m.Kill(ctx) })
}

func (n *Node) bringDown(ctx context.Context, g *guest, word string, end func(*machine) error) error {
	g.mu.Lock()
	idle := g.machine == nil && !g.rising() && !g.wanted()
	g.mu.Unlock()
	if idle {
		return api.Errorf(api.Conflict, "%s %s: it is stopped already", word, g.name())
	}
	if err := g.setRun(ctx, false); err != nil {
		return err
	}
	m, err := g.risen(ctx)
	if err != nil || m == nil {
		return err
	}
	if err := end(m); err != nil {
		return err
	}
	if err := g.await(ctx, func() bool { return g.machine != m && !g.status.ending }); err != nil || g.isOwner() {
		return err
	}
	return api.Errorf(api.Conflict, "%s %s: node %s has taken it over meanwhile", word, g.name(), g.ownerName()).WithHint("Try again.")
}

// rising says whether the guest may be about to run: it is being started, or it is not
// known yet what an earlier agent left. The lock must be held.
func (g *guest) rising() bool { return !g.seen || g.status.starting }

// risen waits for a start that is under way, which a wish that comes now does not call
// back, and returns what runs; nil: nothing, and nothing will.
func (g *guest) risen(ctx context.Context) (m *machine, err error) {
	bound, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	err = g.await(bound, func() bool { m = g.machine; return m != nil || !g.rising() })
	if err != nil && ctx.Err() == nil {
		return nil, api.Errorf(api.Failed, "stop %s: it is to be stopped, and was still being started after %v", g.name(), startBound).WithHint("Try again.")
	}
	return m, err
}

func (n *Node) reset(ctx context.Context, g *guest, _ time.Duration) error {
	return n.onRunning(g, "reset", func(m *machine) error { return m.Reset(ctx) })
}

func (n *Node) onRunning(g *guest, word string, act func(*machine) error) error {
	m := g.current()
	if m == nil {
		return api.Errorf(api.Conflict, "%s %s: it is stopped", word, g.name()).WithHint("`vmctl vm start %s`", g.name())
	}
	if err := act(m); err != nil {
		return err
	}
	n.journal.record(info, "guest-"+word, g.name(), fmt.Sprintf("%s: %s by the user", g.name(), word))
	return nil
}

// Promote implements api.Operator.
func (n *Node) Promote(ctx context.Context, name string, confirmPeerOff bool) (api.VM, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return api.VM{}, err
	}
	err = n.decider.request(ctx, func(id uint64) ha.Event {
		return ha.Promote{ID: id, Guest: ha.GuestID(g.id), ConfirmPeerOff: confirmPeerOff, AcceptOutdated: confirmPeerOff}
	})
	if err != nil {
		return api.VM{}, promoteError(g.name(), confirmPeerOff, err)
	}
	name = g.name()
	n.recoverer.tell(recovery.Ordered{ID: ha.GuestID(g.id)}) // who takes it here wants it to run
	n.journal.record(warning, "promoted-by-hand", name, fmt.Sprintf("an operator promoted %s here, confirming that the peer is off", name))
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	err = g.await(ctx, func() bool { return g.taking == nil && (g.machine != nil || !g.wanted() || g.status.failure != "") })
	if err != nil {
		return api.VM{}, api.Errorf(api.Failed, "promote %s: it is this node's now, but was not up after %s", name, startBound)
	}
	return n.view(ctx, g), nil
}

// promoteError adds to a refusal of the core which guest it is about and what to do.
func promoteError(name string, confirmed bool, err error) error {
	e := *api.AsError(err)
	e.Message = "promote " + name + ": " + e.Message
	switch {
	case e.Code == api.Unsafe && !confirmed:
		e.Hint = fmt.Sprintf("`vmctl ha promote %s --confirm-peer-off`, once you have seen that it is off.", name)
	case e.Code == api.Unsafe, e.Code == api.Conflict:
		e.Hint = fmt.Sprintf("See `vmctl ha why %s`.", name)
	}
	return &e
}

// Console implements api.Operator.
func (n *Node) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return nil, err
	}
	if g.current() == nil {
		return nil, api.Errorf(api.Conflict, "open the console of %s: it is stopped", name)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", g.layout.Serial())
	if err != nil {
		return nil, api.Errorf(api.Conflict, "open the console of %s: %v", name, err).WithHint("Does someone else have it open?")
	}
	return conn, nil
}

// SerialLog implements api.Operator.
func (n *Node) SerialLog(_ context.Context, name string) (string, error) {
	g, err := n.guests.named(name)
	if err != nil {
		return "", err
	}
	return g.layout.SerialLog(), nil
}

// current is the running machine, nil if there is none.
func (g *guest) current() *machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine
}

func (g *guest) running() bool { return g.current() != nil }

func (g *guest) ownerName() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owner == "" {
		return "(not heard yet)"
	}
	return string(g.owner)
}

// removeFiles deletes what this node has of the guest.
func (g *guest) removeFiles() error {
	return errors.Join(
		replica.Remove(replica.Config{Dir: g.replicaDir(), RAMDir: g.n.config.RAMDir, Name: g.id}),
		vm.Clean(g.n.platform(&launch{}), g.spec(), g.layout, false),
		vm.Remove(g.layout))
}
