package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/snapshot/replicator"
	"vmctl/store"
	"vmctl/vm"
)

// verifyRecord is the last complete verification of a guest's replica by this
// node.
type verifyRecord struct {
	Time      time.Time `msgpack:"time"`
	State     string    `msgpack:"state"`
	Compared  int64     `msgpack:"compared"`
	Differed  int64     `msgpack:"differed"`
	Repaired  int64     `msgpack:"repaired"`
	Unsettled int64     `msgpack:"unsettled"`
}

// tellEvery is how often the progress of a verification is told.
const tellEvery = 250 * time.Millisecond

// Verify implements api.Verifier.
func (n *Node) Verify(ctx context.Context, name string, tell func(api.Verification)) (api.Verification, error) {
	return n.verify(ctx, name, tell, false)
}

// verify is Verify; gently leaves the disks and the link alone half of the time.
func (n *Node) verify(ctx context.Context, name string, tell func(api.Verification), gently bool) (api.Verification, error) {
	g, err := n.ownGuest(name)
	if err != nil {
		return api.Verification{}, err
	}
	g.mu.Lock()
	m, phase := g.machine, g.status.phase
	var protector *snapshot.Protector
	if m != nil {
		protector = m.protector
	}
	g.mu.Unlock()
	switch {
	case g.spec().Protection.Level == vm.ProtectNone:
		return api.Verification{}, api.Errorf(api.Conflict, "verify the replica of %s: it is not protected and has none", g.name()).
			WithHint("`vmctl vm set %s --protection resume` gives it one.", g.name())
	case m == nil:
		return api.Verification{}, api.Errorf(api.Conflict, "verify the replica of %s: it is stopped", g.name()).WithHint("`vmctl vm start %s`", g.name())
	case protector == nil || phase != "synced":
		return api.Verification{}, api.Errorf(api.Conflict, "verify the replica of %s: there is no complete one, it is %s", g.name(), phase).
			WithHint("A replica that is not complete is compared anyway; wait with `vmctl vm wait %s --state synced`.", g.name())
	}
	return g.verify(ctx, protector, tell, gently)
}

// verify compares, and waits for the repair of what differs.
func (g *guest) verify(ctx context.Context, p *snapshot.Protector, tell func(api.Verification), gently bool) (api.Verification, error) {
	name, began := g.name(), time.Now()
	v := api.Verification{VM: name, State: api.VerifyComparing, Time: api.Time{Time: began}}
	var told time.Time
	step := began
	found, err := p.Verify(ctx, func(now replicator.Verified) {
		if len(now.Differs) > 0 {
			g.differed(now.Differs)
		} else if gently {
			rest(ctx, time.Since(step))
			step = time.Now()
		}
		if time.Since(told) < tellEvery {
			return
		}
		told = time.Now()
		v.ComparedBytes, v.TotalBytes, v.UnsettledBytes = now.Compared, now.Total, now.Unsettled
		tell(v)
	})
	v.ComparedBytes, v.TotalBytes, v.UnsettledBytes, v.DifferedBytes = found.Compared, found.Total, found.Unsettled, found.Differed()
	if len(found.Differs) > 0 {
		v.State = api.VerifyRepairing
	}
	switch {
	case errors.Is(err, replicator.ErrNotInSync), errors.Is(err, replicator.ErrBusy):
		return v, api.Errorf(api.Conflict, "verify the replica of %s: %v", name, err).WithHint("Try again.")
	case err != nil:
		return v, err
	case len(found.Differs) == 0:
		v.State = api.VerifyEqual
		return v, g.keepVerified(v)
	}
	tell(v)
	if err := g.awaitRepair(ctx, p, &v, tell); err != nil {
		return v, err
	}
	return v, g.keepVerified(v)
}

// awaitRepair waits until the replica counts again. Compare and checkpoint are
// the protector's business; it goes on whoever waits.
func (g *guest) awaitRepair(ctx context.Context, p *snapshot.Protector, v *api.Verification, tell func(api.Verification)) error {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		g.mu.Lock()
		repaired, same := !g.differs, g.machine != nil && g.machine.protector == p
		g.mu.Unlock()
		v.RepairedBytes, _ = p.Repaired()
		switch {
		case !same:
			return api.Errorf(api.Conflict, "verify the replica of %s: it ended, or moved, before the repair was complete", v.VM).
				WithHint("The replica does not count until it is; see `vmctl vm show %s`.", v.VM)
		case repaired:
			v.State = api.VerifyRepaired
			return nil
		}
		tell(*v)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// differed raises the alarm about a replica that is being repaired.
func (g *guest) differed(ranges []replicator.Range) {
	name := g.name()
	g.mu.Lock()
	g.differs = true
	g.mu.Unlock()
	g.n.alarms.set("replica-differed", name, true, fmt.Sprintf(
		"the replica of %s counted as complete and differs from its disks: %s; it is outdated and all of it is compared again", name, rangesText(ranges)))
}

// repaired ends that alarm when the replica counts again, or, with a protector
// of nil, when there is none any more.
func (g *guest) repaired(p *snapshot.Protector) {
	g.mu.Lock()
	differs := g.differs
	g.differs = false
	g.mu.Unlock()
	if !differs {
		return
	}
	name := g.name()
	if p != nil {
		sent, ranges := p.Repaired()
		g.n.journal.record(warning, "replica-repaired", name, fmt.Sprintf("%d bytes of the replica of %s were repaired: %s", sent, name, rangesText(ranges)))
	}
	g.n.alarms.set("replica-differed", name, false, "")
}

// rangesText lists the first ranges.
func rangesText(ranges []replicator.Range) string {
	const most = 16
	var words []string
	for i, r := range ranges {
		if i == most {
			words = append(words, fmt.Sprintf("and %d more", len(ranges)-most))
			break
		}
		words = append(words, fmt.Sprintf("%s %d+%d", r.Disk, r.Offset, r.Length))
	}
	return strings.Join(words, ", ")
}

func (g *guest) keepVerified(v api.Verification) error {
	record := verifyRecord{Time: v.Time.Time, State: v.State, Compared: v.ComparedBytes, Differed: v.DifferedBytes, Repaired: v.RepairedBytes, Unsettled: v.UnsettledBytes}
	err := g.n.db.Update(func(tx *store.Tx) error {
		_, err := verifyTable.Put(tx, g.id, record)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep the outcome of the verification of %s: %w", v.VM, err)
	}
	return nil
}

// lastVerified is the last complete verification; nil if there was none here.
func (g *guest) lastVerified() *api.Verification {
	var row store.Row[verifyRecord]
	err := g.n.db.View(func(tx *store.Tx) (err error) {
		row, err = verifyTable.Get(tx, g.id)
		return err
	})
	if err != nil {
		return nil // also one that cannot be read: the next one writes it anew
	}
	r := row.Value
	return &api.Verification{VM: g.name(), State: r.State, Time: api.Time{Time: r.Time}, ComparedBytes: r.Compared, TotalBytes: r.Compared,
		DifferedBytes: r.Differed, RepairedBytes: r.Repaired, UnsettledBytes: r.Unsettled}
}
