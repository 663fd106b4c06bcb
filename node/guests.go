package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/snapshot/replica"
	"vmctl/store"
	"vmctl/vm"
)

// guests are all guests this node knows of, its own and the peer's.
type guests struct {
	n     *Node
	share *replica.Share  // their way to the peer
	turns *snapshot.Turns // in which they stand still

	mu    sync.Mutex
	byID  map[string]*guest
	ctx   context.Context // nil before run
	tasks sync.WaitGroup
}

func newGuests(n *Node) *guests {
	return &guests{n: n, byID: map[string]*guest{}, share: replica.NewShare(), turns: snapshot.NewTurns()}
}

// load makes a guest of every stored record. They live once run is called.
func (gs *guests) load() error {
	return gs.n.db.View(func(tx *store.Tx) error {
		for row, err := range guestTable.Prefix(tx, "") {
			if err != nil {
				return fmt.Errorf("load the guests: %w", err)
			}
			if row.Value.Removed {
				continue
			}
			place, err := placeTable.Get(tx, row.Key)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("load the place of guest %s: %w", row.Value.Spec.Name, err)
			}
			gs.byID[row.Key] = newGuest(gs.n, row.Key, row.Value, place.Value)
		}
		return nil
	})
}

// run lives every guest until ctx ends and waits for them.
func (gs *guests) run(ctx context.Context) {
	gs.mu.Lock()
	gs.ctx = ctx
	for _, g := range gs.byID {
		gs.tasks.Go(func() { g.live(ctx) })
	}
	gs.mu.Unlock()
	<-ctx.Done()
	gs.tasks.Wait()
}

// ending says whether the agent is about to end.
func (gs *guests) ending() bool {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.ctx != nil && gs.ctx.Err() != nil
}

// settle waits until every guest knows what an earlier agent left running, for
// bound at most: a frozen guest is adopted only with its next lease.
func (gs *guests) settle(ctx context.Context, bound time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for _, g := range gs.list() {
		select {
		case <-g.looked:
		case <-ctx.Done():
			return
		}
	}
}

// add takes a guest in; it lives from now on.
func (gs *guests) add(g *guest) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.byID[g.id] = g
	if gs.ctx != nil {
		gs.tasks.Go(func() { g.live(gs.ctx) })
	}
}

func (gs *guests) drop(id string) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	delete(gs.byID, id)
}

func (gs *guests) get(id string) *guest {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.byID[id]
}

// list gives all guests by name.
func (gs *guests) list() []*guest {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	list := make([]*guest, 0, len(gs.byID))
	for _, g := range gs.byID {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *guest) int { return strings.Compare(a.name(), b.name()) })
	return list
}

// named finds a guest by name or UUID. Two nodes that could not hear each other
// may have given one name twice; then only the UUID will do.
func (gs *guests) named(name string) (found *guest, err error) {
	for _, g := range gs.list() {
		if g.id == name {
			return g, nil
		}
		if g.name() != name {
			continue
		}
		if found != nil {
			return nil, api.Errorf(api.Conflict, "two guests are named %q: %s on node %s and %s on node %s", name, found.id, found.ownerName(), g.id, g.ownerName()).
				WithHint("Name the one you mean by its UUID.")
		}
		found = g
	}
	if found != nil {
		return found, nil
	}
	return nil, api.Errorf(api.NotFound, "no guest is named %q", name).WithHint("`vmctl vm ls` lists them.")
}

func (gs *guests) nameOf(id ha.GuestID) string {
	if g := gs.get(string(id)); g != nil {
		return g.name()
	}
	return string(id)
}

// changed takes over what the peer wrote of a guest.
func (gs *guests) changed(id string, record guestRecord) {
	g := gs.get(id)
	switch {
	case g == nil && !record.Removed:
		g = newGuest(gs.n, id, record, gs.placeOf(id))
		gs.add(g)
		gs.recall(g)
	case g != nil:
		g.update(record)
	}
}

// recall tells a guest that came after its lease record who owns it. It is
// known to others already, so a newer record is not missed.
func (gs *guests) recall(g *guest) {
	err := gs.n.db.View(func(tx *store.Tx) error {
		row, err := leaseTable.Get(tx, g.id)
		if err == nil {
			g.place(row.Value.Owner, row.Value.Epoch)
		}
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		gs.n.log.Error("the guest's lease record cannot be read", "vm", g.name(), "error", err)
	}
}

// owned tells a guest who owns it, as the lease core has it on record.
func (gs *guests) owned(record ha.Record) {
	if g := gs.get(string(record.Guest)); g != nil {
		g.place(record.Owner, record.Epoch)
	}
}

// The lease core's actions. A guest that is not known (any more) needs none.

func (gs *guests) renew(a ha.Renew) {
	if g := gs.get(string(a.Guest)); g != nil {
		g.renew(a)
		return
	}
	if a.Arm != 0 { // no QEMU of that guest exists here
		gs.tasks.Go(func() { gs.n.decider.tell(ha.Armed{Guest: a.Guest, Arm: a.Arm}) })
	}
}

func (gs *guests) takeOver(a ha.TakeOver) {
	if g := gs.get(string(a.Guest)); g != nil {
		g.takeOver(a)
	}
}

func (gs *guests) yield(a ha.Yield) {
	if g := gs.get(string(a.Guest)); g != nil {
		g.yield(a)
	}
}

func (gs *guests) replicaState(id ha.GuestID, epoch uint64, attached bool) {
	if g := gs.get(string(id)); g != nil {
		g.replicaDecided(epoch, attached)
	}
}

func (gs *guests) settled(a ha.Settled) {
	if g := gs.get(string(a.Guest)); g != nil {
		g.settledOnce()
	}
}

func (gs *guests) explain(a ha.Note) {
	if g := gs.get(string(a.Guest)); g != nil {
		g.explain(a)
	}
}

// forgotten removes a guest that its owner removed.
func (gs *guests) forgotten(id ha.GuestID) {
	if g := gs.get(string(id)); g != nil {
		g.forget()
	}
}

// usedDisks lists the disk files of all guests here, and whose they are.
func (gs *guests) usedDisks(except string) map[string]string {
	used := map[string]string{}
	for _, g := range gs.list() {
		if g.id == except {
			continue
		}
		for _, d := range g.spec().Disks {
			used[g.layout.Disk(d, g.onReplica()).Path] = g.name()
			if d.Path != "" {
				used[d.Path] = g.name()
			}
		}
	}
	return used
}

// used is what the guests here take at most, replicas included: a
// replica's RAM is kept in memory too.
func (gs *guests) used() (use vm.Use) {
	for _, g := range gs.list() {
		one := g.spec().ResourceUse()
		use.Memory += one.Memory
		use.Files += one.Files
	}
	return use
}
