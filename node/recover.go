package node

import (
	"context"
	"reflect"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/vm"
	"vmctl/vm/guard"
)

// recoverer owns the planner of starts: one goroutine steps it and executes
// its actions. What happens to guests is told from everywhere, in order, and
// telling never waits.
type recoverer struct {
	n       *Node
	planner *recovery.Planner

	mu     sync.Mutex
	queue  []recovery.Event
	states map[ha.GuestID]recovery.State
	wake   chan struct{} // capacity 1

	// The runner's own.
	peer    recovery.Peer
	learned uint64 // of the peer's words: those up to here are from before it was lost
	health  recovery.Health
	running map[string]bool
	homing  sync.WaitGroup
}

// peerSilent is how long the peer is not heard before it counts as down here: a
// takeover comes later than that, a handover does not.
const peerSilent = time.Second

// recoverTick is how often the planner sees the time, the peer and the alarms.
const recoverTick = 100 * time.Millisecond

func newRecoverer(n *Node) *recoverer {
	return &recoverer{
		n: n, planner: recovery.New(n.config.Name, recovery.DefaultTiming()),
		states: map[ha.GuestID]recovery.State{}, wake: make(chan struct{}, 1), running: map[string]bool{},
	}
}

func (r *recoverer) tell(event recovery.Event) {
	r.mu.Lock()
	r.queue = append(r.queue, event)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// state says where a guest stands.
func (r *recoverer) state(id string) recovery.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.states[ha.GuestID(id)]; ok {
		return s
	}
	return recovery.State{Phase: recovery.PhaseIdle}
}

// run steps the planner until ctx ends.
func (r *recoverer) run(ctx context.Context) {
	defer r.homing.Wait()
	ticker := time.NewTicker(recoverTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-ticker.C:
		}
		r.observe(ctx)
		r.mu.Lock()
		queue := append(r.queue, recovery.Tick{})
		r.queue = nil
		r.mu.Unlock()
		for _, event := range queue {
			r.step(ctx, event)
		}
		r.publish()
	}
}

func (r *recoverer) step(ctx context.Context, event recovery.Event) {
	if g, ok := event.(recovery.Guest); ok && r.running[string(g.ID)] != g.Running {
		r.running[string(g.ID)] = g.Running
		r.n.exchange.soon() // guests of the peer may wait for it
	}
	for _, action := range r.planner.Step(ha.Time(guard.Now()), event) {
		r.execute(ctx, action)
	}
}

// publish leaves the guests' states for people.
func (r *recoverer) publish() {
	states := map[ha.GuestID]recovery.State{}
	for _, g := range r.n.guests.list() {
		states[ha.GuestID(g.id)] = r.planner.State(ha.GuestID(g.id))
	}
	r.mu.Lock()
	r.states = states
	r.mu.Unlock()
}

func (r *recoverer) execute(ctx context.Context, action recovery.Action) {
	n := r.n
	switch a := action.(type) {
	case recovery.Start:
		if g := n.guests.get(string(a.ID)); g != nil {
			g.locked(func() {
				if g.epoch == a.Epoch && g.mine() {
					g.plan = &a
				}
			})
		}
	case recovery.Remember:
		if g := n.guests.get(string(a.ID)); g != nil {
			if err := g.writePlace(func(p *placeRecord) { p.GaveUp = a.GaveUp }); err != nil {
				g.log.Error("whether the guest was given up is not stored", "error", err)
			}
		}
	case recovery.GoHome:
		r.homing.Go(func() { r.goHome(ctx, a) })
	case recovery.Alarm:
		n.alarms.set(string(a.Kind), n.guests.nameOf(a.ID), a.On, a.Text)
	case recovery.Note:
		n.journal.record(severityOf(a.Word), string(a.Word), n.guests.nameOf(a.ID), a.Text)
	}
}

func severityOf(word recovery.Word) string {
	switch word {
	case recovery.FellBack:
		return alarm
	case recovery.OutOfOrder, recovery.BacksOff, recovery.HomeFailed:
		return warning
	}
	return info
}

func (r *recoverer) goHome(ctx context.Context, a recovery.GoHome) {
	done := recovery.WentHome{ID: a.ID}
	if g := r.n.guests.get(string(a.ID)); g == nil {
		done.Err = "it was removed"
	} else if err := r.n.handOver(ctx, g); err != nil {
		done.Err = err.Error()
	}
	r.tell(done)
}

// observe tells what has changed around the guests: the peer, and alarms.
func (r *recoverer) observe(ctx context.Context) {
	var core ha.Status
	if r.n.decider.inspect(ctx, func(c *ha.Core) { core = c.Status() }) != nil {
		return
	}
	said, number := r.n.exchange.peer()
	up := core.PeerHeard != 0 && time.Duration(core.Now-core.PeerHeard) < peerSilent
	if !up {
		r.learned = number
	}
	other, _ := r.n.members.peer()
	peer := recovery.Peer{Name: other.Name, Up: up, Maintenance: said.Maintenance, Alarm: said.Alarm}
	if number > r.learned {
		peer.Running = r.runningThere(said)
	}
	var events []recovery.Event
	if !reflect.DeepEqual(peer, r.peer) {
		r.peer = peer
		events = append(events, peer)
	}
	own, ofGuests := r.n.alarms.standing()
	if health := (recovery.Health{Alarm: own}); health != r.health {
		r.health = health
		events = append(events, health)
		r.n.exchange.soon()
	}
	for _, g := range r.n.guests.list() {
		g.mu.Lock()
		text := ofGuests[g.record.Spec.Name]
		same := g.alarm == text
		g.mu.Unlock()
		if !same {
			g.locked(func() { g.alarm = text })
		}
	}
	// The peer's state first: a takeover that waits in the queue follows from it.
	r.mu.Lock()
	r.queue = append(events, r.queue...)
	r.mu.Unlock()
}

// runningThere lists the guests that run on the peer. An older agent does not
// say which; then those that are to run there do.
func (r *recoverer) runningThere(said nodeInfo) (list []ha.GuestID) {
	for _, id := range said.Running {
		list = append(list, ha.GuestID(id))
	}
	for _, g := range r.n.guests.list() {
		if said.Memory == 0 && !g.isOwner() && g.isWanted() {
			list = append(list, ha.GuestID(g.id))
		}
	}
	return list
}

// policyOf gives the words of a spec to the planner.
func policyOf(spec vm.Spec) recovery.Policy {
	r := spec.Recovery.Defaults()
	return recovery.Policy{
		Action: recovery.How(r.Action), Priority: r.Priority, After: r.After, Attempts: r.Attempts, Backoff: r.Backoff(),
		Failback: recovery.Failback(r.Failback), Settle: r.Settle(),
	}
}

// mine says whether this node owns the guest. The lock must be held.
func (g *guest) mine() bool { return g.owner == ha.NodeID(g.n.config.Name) }

// wanted says whether the guest is to run. What the former owner's record says
// does not count for one that was taken over: the lease core knows better. The
// lock must be held.
func (g *guest) wanted() bool {
	if g.taking != nil && g.record.Epoch < g.taking.Epoch {
		return g.taking.Run
	}
	return g.record.Run
}

// facts is the guest as the planner sees it. The lock must be held.
func (g *guest) facts() recovery.Guest {
	spec, taking := g.record.Spec, g.taking != nil && g.taking.Epoch == g.epoch && g.mine()
	return recovery.Guest{
		ID: ha.GuestID(g.id), Name: spec.Name, Policy: policyOf(spec), Home: spec.Recovery.Home, Run: g.wanted() && !g.gone,
		Mine: g.mine(), Epoch: g.epoch, Covered: spec.Protection.Level != vm.ProtectNone,
		Taking: taking, Resumable: taking && g.taking.Level != ha.LevelRestart,
		Running: g.machine != nil, Looking: g.mine() && (!g.seen || g.deadline == 0 && g.taking == nil), GaveUp: g.here.GaveUp,
		Synced: g.status.phase == "synced" && spec.Protection.Level == vm.ProtectResume, Alarm: g.alarm,
	}
}

// report tells the planner what has changed. The lock must be held, so that
// the order is right.
func (g *guest) report() {
	if g.n.recoverer == nil {
		return
	}
	if facts := g.facts(); !reflect.DeepEqual(facts, g.told) {
		g.told = facts
		g.n.recoverer.tell(facts)
	}
}
