package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/store"
	"vmctl/vm/guard"
)

// cluster is one pair that this witness serves: its core, stepped under the
// lock, and its links.
type cluster struct {
	id     string
	record clusterRecord
	db     *store.DB
	log    *slog.Logger
	links  *lease.Links

	mu   sync.Mutex
	core *ha.Witness
}

// open makes a cluster ready to be served. A cluster that enrols again keeps
// its core: what was promised stays promised.
func (w *Witness) open(id string, record clusterRecord) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.clusters[id]; known != nil {
		return nil
	}
	c := &cluster{id: id, record: record, db: w.db, log: w.config.Log.With("cluster", record.Name)}
	records, err := c.load()
	if err != nil {
		return err
	}
	c.core, err = ha.NewWitness(ha.WitnessSetup{
		Self: ha.NodeID(w.self.ID), Boot: w.self.Boot, Timing: ha.DefaultTiming(),
		Start: ha.Time(guard.Now()), Records: records,
	})
	if err != nil {
		return err
	}
	c.links = lease.New(context.Background(), nil, c.deliver, nil, c.log)
	w.clusters[id] = c
	return nil
}

func (c *cluster) load() (records []ha.Record, err error) {
	err = c.db.View(func(tx *store.Tx) error {
		rows, err := leaseTable.List(tx, c.id+"/")
		for _, row := range rows {
			records = append(records, row.Value)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load the leases of cluster %s: %w", c.record.Name, err)
	}
	return records, nil
}

// deliver steps the core and executes what follows. A vote that cannot be
// stored is not cast.
func (c *cluster) deliver(message ha.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var event ha.Event = ha.Received{Message: message}
	for event != nil {
		actions := c.core.Step(ha.Time(guard.Now()), event)
		event = nil
		if err := c.persist(actions); err != nil {
			c.log.Error("a vote could not be stored", "error", err)
			event = ha.PersistFailed{Err: err.Error()}
			continue
		}
		for _, action := range actions {
			c.execute(action)
		}
	}
}

// persist stores what must be durable before anything else happens.
func (c *cluster) persist(actions []ha.Action) error {
	var writes []func(*store.Tx) error
	for _, action := range actions {
		switch a := action.(type) {
		case ha.Persist:
			writes = append(writes, func(tx *store.Tx) error {
				_, err := leaseTable.PutEpoch(tx, c.key(a.Record.Guest), a.Record, a.Record.Epoch)
				return err
			})
		case ha.Erase:
			writes = append(writes, func(tx *store.Tx) error {
				err := leaseTable.Delete(tx, c.key(a.Guest))
				if errors.Is(err, store.ErrNotFound) {
					return nil
				}
				return err
			})
		}
	}
	if len(writes) == 0 {
		return nil
	}
	return c.db.Update(func(tx *store.Tx) error {
		for _, write := range writes {
			if err := write(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *cluster) key(guest ha.GuestID) string {
	return c.id + "/" + strings.ReplaceAll(string(guest), "/", "_")
}

func (c *cluster) execute(action ha.Action) {
	switch a := action.(type) {
	case ha.Send:
		c.links.Send(a.To, a.Message)
	case ha.Note:
		c.log.Info("vote", "guest", a.Guest, "verdict", a.Verdict, "reason", a.Reason)
	case ha.Alarm:
		c.log.Error("alarm", "kind", a.Kind, "on", a.On, "text", a.Text)
	}
}
