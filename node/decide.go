package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/store"
	"vmctl/vm/guard"
)

// decider owns the lease core: one goroutine steps it and executes its actions
// in order. Nothing it calls may wait for a network or a guest; the database is
// the one thing it waits for, because a vote must be durable before it is cast.
type decider struct {
	core   *ha.Core
	db     *store.DB
	tick   time.Duration
	log    *slog.Logger
	send   func(to ha.NodeID, m ha.Message)
	fence  func(ha.Fence)
	guests guestActions
	shared func(ha.Cluster)
	notice func(ha.Action) // Alarm and Note

	events  chan ha.Event
	queries chan func(*ha.Core)
	done    chan struct{}
	fatal   chan error // capacity 1: the agent cannot go on

	nextID  uint64
	waiting map[uint64]chan ha.Reply
}

// guestActions is what the core may want of the guests here. None may wait.
type guestActions interface {
	owned(ha.Record)
	renew(ha.Renew)
	takeOver(ha.TakeOver)
	yield(ha.Yield)
	replicaState(id ha.GuestID, epoch uint64, attached bool)
	settled(ha.Settled)
}

func newDecider() *decider {
	return &decider{
		events:  make(chan ha.Event, 1024),
		queries: make(chan func(*ha.Core)),
		done:    make(chan struct{}),
		fatal:   make(chan error, 1),
		waiting: map[uint64]chan ha.Reply{},
	}
}

// run steps the core until ctx ends.
func (d *decider) run(ctx context.Context) {
	defer close(d.done)
	ticker := time.NewTicker(d.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-d.events:
			d.step(event)
		case query := <-d.queries:
			query(d.core)
		case <-ticker.C:
			d.step(ha.Tick{})
		}
	}
}

// deliver takes a message from a link; a full queue loses it, as a network may.
func (d *decider) deliver(m ha.Message) {
	select {
	case d.events <- ha.Received{Message: m}:
	default:
	}
}

// tell hands the core an event of this node, which must not be lost.
func (d *decider) tell(event ha.Event) {
	select {
	case d.events <- event:
	case <-d.done:
	}
}

// inspect runs query in the core's goroutine.
func (d *decider) inspect(ctx context.Context, query func(*ha.Core)) error {
	ran := make(chan struct{})
	select {
	case d.queries <- func(c *ha.Core) { query(c); close(ran) }:
		<-ran
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.done:
		return api.Errorf(api.Unreachable, "the agent is stopping")
	}
}

// request makes a request of the core and waits for its reply.
func (d *decider) request(ctx context.Context, make func(id uint64) ha.Event) error {
	reply := d.reply()
	err := d.inspect(ctx, func(*ha.Core) {
		d.nextID++
		d.waiting[d.nextID] = reply
		d.step(make(d.nextID))
	})
	if err != nil {
		return err
	}
	select {
	case r := <-reply:
		return replyError(r)
	case <-ctx.Done():
		return ctx.Err()
	case <-d.done:
		return api.Errorf(api.Unreachable, "the agent is stopping")
	}
}

func (d *decider) reply() chan ha.Reply { return make(chan ha.Reply, 1) }

// replyError gives a refusal of the core the API's code.
func replyError(r ha.Reply) error {
	codes := map[ha.Code]api.Code{
		ha.CodeNotFound: api.NotFound, ha.CodeConflict: api.Conflict, ha.CodeNotOwner: api.Conflict, ha.CodeUnsafe: api.Unsafe,
		ha.CodeOutdated: api.Unsafe, ha.CodeUnreachable: api.Unreachable, ha.CodeStorage: api.Failed, ha.CodeInvalid: api.Usage,
	}
	if r.Code == ha.OK {
		return nil
	}
	code, known := codes[r.Code]
	if !known {
		code = api.Failed
	}
	return &api.Error{Code: code, Message: r.Text}
}

// step feeds one event and executes what follows. A durable action that fails
// drops the rest of its list, and the core hears of it.
func (d *decider) step(event ha.Event) {
	for event != nil {
		actions := d.core.Step(ha.Time(guard.Now()), event)
		event = nil
		rest, err := d.persist(actions)
		if err != nil {
			d.log.Error("a decision could not be stored", "error", err)
			if errors.Is(err, store.ErrUncertain) {
				// What the disk holds is known only to the next start.
				select {
				case d.fatal <- err:
				default:
				}
			}
			event = ha.PersistFailed{Err: err.Error()}
			continue
		}
		for _, action := range rest {
			d.execute(action)
		}
	}
}

// persist makes the durable actions, which stand first, so in one transaction,
// and returns the others.
func (d *decider) persist(actions []ha.Action) ([]ha.Action, error) {
	n := 0
	for n < len(actions) && durable(actions[n]) {
		n++
	}
	if n == 0 {
		return actions, nil
	}
	err := d.db.Update(func(tx *store.Tx) error {
		for _, action := range actions[:n] {
			if err := storeDecision(tx, action); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, action := range actions[:n] {
		switch a := action.(type) {
		case ha.PersistCluster:
			d.shared(a.Cluster)
		case ha.Persist:
			d.guests.owned(a.Record)
		}
	}
	return actions[n:], nil
}

func durable(action ha.Action) bool {
	switch action.(type) {
	case ha.Persist, ha.PersistCluster, ha.Erase:
		return true
	}
	return false
}

func storeDecision(tx *store.Tx, action ha.Action) error {
	switch a := action.(type) {
	case ha.Persist:
		_, err := leaseTable.PutEpoch(tx, string(a.Record.Guest), a.Record, a.Record.Epoch)
		return err
	case ha.PersistCluster:
		_, err := sharedTable.Put(tx, only, a.Cluster)
		return err
	case ha.Erase:
		return deleteIfThere(leaseTable, tx, string(a.Guest))
	}
	return fmt.Errorf("no way to store %T", action)
}

func (d *decider) execute(action ha.Action) {
	switch a := action.(type) {
	case ha.Send:
		d.send(a.To, a.Message)
	case ha.Renew:
		d.guests.renew(a)
	case ha.TakeOver:
		d.guests.takeOver(a)
	case ha.Yield:
		d.guests.yield(a)
	case ha.Detached:
		d.guests.replicaState(a.Guest, a.Epoch, false)
	case ha.Attached:
		d.guests.replicaState(a.Guest, a.Epoch, true)
	case ha.Settled:
		d.guests.settled(a)
	case ha.Fence:
		d.fence(a)
	case ha.Reply:
		if waiting := d.waiting[a.ID]; waiting != nil {
			waiting <- a
			delete(d.waiting, a.ID)
		}
	default:
		d.notice(action)
	}
}
