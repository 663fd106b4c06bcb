package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"vmctl/node/api"
	"vmctl/vm"
)

// Bounds of a planned shutdown.
const (
	leaveBound = 2 * time.Minute        // all of it, unless the configuration says otherwise
	leaveAtOne = 4                      // guests that are handed over or stopped at a time
	extendBy   = 20 * time.Second       // how long the service manager waits for the next word
	stopMargin = 5 * time.Second        // of the bound, kept for ending QEMU by force
	tellBound  = 300 * time.Millisecond // for notifications when the agent stops
	tellLast   = 3 * time.Second        // and when the node is shut down
)

// HostPower is what the agent must know of the host's own power and asks of who
// runs it.
type HostPower interface {
	// Stopping says whether the host is shutting down.
	Stopping(ctx context.Context) bool
	// Extend asks the service manager to wait as long for the end of this process.
	Extend(d time.Duration)
	// StopService asks the service manager not to start the agent again, and to
	// end this process; false: there is no such manager.
	StopService(ctx context.Context) (bool, error)
}

// Shutdown implements api.Hosts: this node gives its protected guests to the
// peer, stops the others, and then its agent ends. The users' wishes that they
// run stand: what stays here starts again with the next agent.
func (n *Node) Shutdown(ctx context.Context) (api.Shutdown, error) {
	report, err := n.leave(ctx, "by a command")
	if err != nil {
		return report, err
	}
	n.endOnce.Do(func() { close(n.left) })
	return report, nil
}

// leave empties this node within its bound. It can be called again.
func (n *Node) leave(ctx context.Context, cause string) (api.Shutdown, error) {
	n.leaving.Lock()
	defer n.leaving.Unlock()
	bound := n.config.ShutdownTimeout
	if bound == 0 {
		bound = leaveBound
	}
	// What is begun is finished, whoever still waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	defer start(ctx, n.extend)()
	report := api.Shutdown{Node: n.config.Name, Moved: []string{}, Stopped: []api.Stay{}, Stay: []api.Stay{}}
	n.journal.record(warning, "node-shutdown", "", "this node is shut down "+cause+": it gives its guests away and stops what stays")
	if err := n.self.change(func(r *nodeRecord) { r.Down = true }); err != nil {
		return report, err
	}
	refusal := n.askPeer(ctx)
	tried := map[string]bool{}
	for { // one may have been starting while the others were given away
		var todo []*guest
		for _, g := range n.guests.list() {
			if g.isOwner() && g.running() && !tried[g.id] {
				todo, tried[g.id] = append(todo, g), true
			}
		}
		if len(todo) == 0 {
			break
		}
		n.emptyAll(ctx, todo, refusal, &report)
	}
	n.journal.record(info, "node-empty", "", fmt.Sprintf("%d guests handed over, %d stopped, %d left", len(report.Moved), len(report.Stopped), len(report.Stay)))
	return report, nil
}

// emptyAll hands guests over, or shuts them down, some at a time.
func (n *Node) emptyAll(ctx context.Context, todo []*guest, refusal error, report *api.Shutdown) {
	var mu sync.Mutex
	var parts sync.WaitGroup
	slots := make(chan struct{}, leaveAtOne)
	for _, g := range todo {
		parts.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			moved, how, err := n.emptyOf(ctx, g, refusal)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case moved:
				report.Moved = append(report.Moved, g.name())
			case err == nil:
				report.Stopped = append(report.Stopped, api.Stay{VM: g.name(), Reason: how})
			default:
				report.Stay = append(report.Stay, api.Stay{VM: g.name(), Reason: err.Error()})
			}
		})
	}
	parts.Wait()
}

// emptyOf hands one guest over, or shuts it down; how says why and which.
func (n *Node) emptyOf(ctx context.Context, g *guest, refusal error) (moved bool, how string, err error) {
	why := refusal
	if g.spec().Protection.Level == vm.ProtectNone || why == nil {
		why = n.handOver(ctx, g)
	}
	if why == nil {
		return true, "", nil
	}
	g.op.Lock()
	defer g.op.Unlock()
	m := g.current()
	if m == nil {
		return !g.isOwner(), "it has ended", nil
	}
	g.locked(func() { g.handing = true }) // it is not started again here
	bound := defaultStop
	if deadline, ok := ctx.Deadline(); ok {
		bound = max(min(bound, time.Until(deadline)-stopMargin), 0)
	}
	// Beyond the bound it is ended by force: the host goes down whatever it does.
	ended, err := m.Shutdown(context.WithoutCancel(ctx), bound)
	if err != nil {
		return false, "", fmt.Errorf("not handed over (%w) and not stopped: %w", why, err)
	}
	how = fmt.Sprintf("%s; %s", ended, why)
	n.journal.record(warning, "guest-stopped-for-shutdown", g.name(), fmt.Sprintf("%s was stopped for the shutdown of this node (%s): not handed over because %s", g.name(), ended, why))
	return false, how, nil
}

// extend keeps the service manager waiting while the node is emptied.
func (n *Node) extend(ctx context.Context) {
	ticker := time.NewTicker(extendBy / 4)
	defer ticker.Stop()
	for {
		n.config.Host.Extend(extendBy)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// down says whether this node is being shut down: nothing is started here.
func (n *Node) down() bool { return n.self.current().Down }

// hostStops empties the node if the host is shutting down, and says whether it
// is. A stop of the agent alone leaves the guests running.
func (n *Node) hostStops() bool {
	ctx, cancel := context.WithTimeout(context.Background(), tellLast)
	defer cancel()
	if !n.down() && !n.config.Host.Stopping(ctx) {
		return false
	}
	if _, err := n.leave(context.Background(), "with its host"); err != nil {
		n.log.Error("this node is shut down, but its guests are not", "error", err)
	}
	return true
}

// stopService ends the agent for good: a service manager would start it again.
func (n *Node) stopService() {
	ctx, cancel := context.WithTimeout(context.Background(), tellLast)
	defer cancel()
	if _, err := n.config.Host.StopService(ctx); err != nil {
		n.log.Warn("the service manager may start the agent again", "error", err)
	}
}

// endCalls lets the answer to the call that ends the agent go out.
func endCalls(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), tellLast)
	defer cancel()
	_ = server.Shutdown(ctx)
}

// lastWords lets notifications go out that targets take at once.
func (n *Node) lastWords() {
	bound := tellBound
	if n.down() {
		bound = tellLast
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	n.notifier.Settle(ctx)
}
