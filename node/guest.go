package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/store"
	"vmctl/vm"
	"vmctl/vm/guard"
)

// guest is one guest as this node sees it. Its goroutine (live) owns the
// processes and files; what others want is left here under the lock, and wake
// makes the goroutine look.
type guest struct {
	n       *Node
	id      string // uuid
	layout  vm.Layout
	log     *slog.Logger
	wake    chan struct{} // capacity 1
	cleaned chan struct{} // closed when everything of a removed guest is gone
	looked  chan struct{} // closed when it is known what an earlier agent left running
	op      sync.Mutex    // held by one operator command at a time

	found   func()          // closes looked; live's
	attempt *recovery.Start // the one under way, or that the machine came of; live's
	spare   *spare          // the QEMU that waits to take the guest; live's, or keepSpare's while that runs
	storing sync.Mutex      // held while a record of the guest is changed
	replica sync.Mutex      // held while the replica is opened, closed or prepared

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when anything below changes
	record  guestRecord
	here    placeRecord

	// What the lease core decided.
	owner    ha.NodeID
	epoch    uint64
	deadline int64 // CLOCK_BOOTTIME of the lease; 0: none yet
	arm      uint64
	taking   *ha.TakeOver    // to be resumed here
	plan     *recovery.Start // allowed, not begun yet
	told     recovery.Guest  // what the planner knows
	detached bool            // the replica is durably outdated
	differs  bool            // it counted and was found to differ; until it is repaired
	attached bool
	settled  uint64 // how often a change of the record became known to a second voter
	verdict  ha.Note

	// What is here now.
	machine *machine // nil: no QEMU
	growing *growth  // asked for by the user, not begun
	standby *snapshot.Standby
	gone    bool   // removed; live ends
	leaves  bool   // gone, because this node left the cluster: its files stay
	handing bool   // it was shut down here to be booted on the peer
	seen    bool   // it is known what an earlier agent left running
	alarm   string // one that stands, for people
	status  situation
}

// situation is what people see.
type situation struct {
	starting bool   // an attempt to start it is under way
	failure  string // why it does not run although it should
	phase    string // of the replica: api.Replica.State
	reason   string
	restarts []time.Time
	hold     time.Time // no restart before
	ending   bool      // QEMU is gone, and what follows is being decided
	peerSeq  uint64
	image    int64     // bytes that the replica's memory takes here
	trial    api.Trial // whether the peer could resume it
	spare    sparing
	fallback fallback
}

func newGuest(n *Node, id string, record guestRecord, here placeRecord) *guest {
	return &guest{
		n: n, id: id, record: record, here: here,
		layout:  vm.NewLayout(n.config.StateDir, n.config.RuntimeDir, n.config.RAMDir, id),
		log:     n.log.With("vm", record.Spec.Name),
		wake:    make(chan struct{}, 1),
		cleaned: make(chan struct{}),
		looked:  make(chan struct{}),
		changed: make(chan struct{}),
		status:  situation{phase: "none"},
	}
}

// locked changes the shared state and wakes everybody who waits for it.
func (g *guest) locked(change func()) {
	g.mu.Lock()
	change()
	g.report()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// await waits until test, called under the lock, is true.
func (g *guest) await(ctx context.Context, test func() bool) error {
	for {
		g.mu.Lock()
		ok, changed := test(), g.changed
		g.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *guest) name() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.record.Spec.Name
}

func (g *guest) spec() vm.Spec {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.record.Spec
}

// onReplica says whether the disks here are a replica's: raw, in our directory.
func (g *guest) onReplica() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.here.Replica
}

// isWanted says whether the guest is to run.
func (g *guest) isWanted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted()
}

func (g *guest) isOwner() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.owner == ha.NodeID(g.n.config.Name)
}

// place sets who owns the guest, unless a later epoch is known. What belonged
// to an earlier epoch ends.
func (g *guest) place(owner ha.NodeID, epoch uint64) {
	g.mu.Lock()
	same := g.owner == owner && g.epoch == epoch || epoch < g.epoch
	g.mu.Unlock()
	if same {
		return
	}
	g.locked(func() {
		g.owner, g.epoch, g.deadline, g.plan = owner, epoch, 0, nil
		g.detached, g.attached = false, false
	})
}

// renew hands a lease on. The guard gets it from the machine's own goroutine:
// nothing here may wait.
func (g *guest) renew(a ha.Renew) {
	g.locked(func() {
		if g.epoch != a.Epoch {
			g.detached, g.attached, g.plan = false, false, nil
		}
		g.owner, g.epoch, g.deadline = ha.NodeID(g.n.config.Name), a.Epoch, int64(a.Deadline)
		if a.Arm != 0 {
			g.arm = a.Arm
		}
	})
}

func (g *guest) takeOver(a ha.TakeOver) {
	g.locked(func() {
		g.owner, g.epoch, g.deadline = ha.NodeID(g.n.config.Name), a.Epoch, int64(a.Deadline)
		g.detached, g.attached = true, false
		g.taking, g.plan, g.status.hold = &a, nil, time.Time{}
	})
}

// yield kills the guest here at once: it is another node's.
func (g *guest) yield(a ha.Yield) {
	g.mu.Lock()
	m := g.machine
	g.mu.Unlock()
	if m != nil {
		m.killNow()
	}
	g.locked(func() {
		g.owner, g.epoch, g.deadline, g.taking, g.plan = a.Owner, a.Epoch, 0, nil, nil
		g.detached, g.attached = false, false
	})
}

func (g *guest) replicaDecided(epoch uint64, attached bool) {
	g.locked(func() {
		if g.epoch == epoch {
			g.attached, g.detached = attached, !attached
			if !attached && g.status.phase == "synced" { // whatever the link still waits for
				g.status.phase, g.status.reason = "outdated", "the peer did not acknowledge in time"
			}
		}
	})
}

func (g *guest) settledOnce()      { g.locked(func() { g.settled++ }) }
func (g *guest) explain(a ha.Note) { g.locked(func() { g.verdict = a }) }
func (g *guest) forget()           { g.locked(func() { g.gone = true }) }

// update takes over a newer record from the peer. It may come late: what was
// written here meanwhile stands.
func (g *guest) update(record guestRecord) {
	g.locked(func() {
		if !record.newerThan(g.record) {
			return
		}
		g.record = record
		g.gone = g.gone || record.Removed
	})
}

// write changes the record, durably, and tells the peer.
func (g *guest) write(change func(*guestRecord)) error {
	g.storing.Lock()
	defer g.storing.Unlock()
	g.mu.Lock()
	record, epoch := g.record, g.epoch
	g.mu.Unlock()
	change(&record)
	if epoch > record.Epoch {
		record.Epoch, record.Version = epoch, 0
	}
	record.Version++
	err := g.n.db.Update(func(tx *store.Tx) error {
		_, err := guestTable.Put(tx, g.id, record)
		return err
	})
	if err != nil {
		return err
	}
	g.locked(func() { g.record = record })
	g.n.exchange.soon()
	return nil
}

// writePlace changes what this node knows of the files here, durably.
func (g *guest) writePlace(change func(*placeRecord)) error {
	g.storing.Lock()
	defer g.storing.Unlock()
	g.mu.Lock()
	here := g.here
	g.mu.Unlock()
	change(&here)
	err := g.n.db.Update(func(tx *store.Tx) error {
		_, err := placeTable.Put(tx, g.id, here)
		return err
	})
	if err != nil {
		return err
	}
	g.locked(func() { g.here = here })
	return nil
}

// leased says whether the guest may run here now.
func (g *guest) leased() (deadline int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline, g.deadline > guard.Now() && g.owner == ha.NodeID(g.n.config.Name)
}
