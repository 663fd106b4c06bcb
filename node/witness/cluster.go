package witness

import (
	"errors"
	"fmt"
	"strings"

	"vmctl/ha"
	"vmctl/store"
	"vmctl/vm/guard"
)

// cluster is one pair that this witness serves. It is the loop's, but for its
// id and name, which do not change.
type cluster struct {
	id    string
	name  string
	core  *ha.Witness
	links []*link
	known known
	// held is what the core said last, while its first actions are being stored:
	// the core must not be stepped then, nor said to have said the rest.
	held []ha.Action
}

// open makes a cluster ready to be served. A cluster that enrols again keeps
// its core: what was promised stays promised.
func (w *Witness) open(id, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clusters[id] != nil {
		return nil
	}
	c := &cluster{id: id, name: name}
	records, err := c.load(w.db)
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
	w.clusters[id] = c
	return nil
}

func (c *cluster) load(db *store.DB) (records []ha.Record, err error) {
	err = db.View(func(tx *store.Tx) error {
		rows, err := leaseTable.List(tx, c.id+"/")
		for _, row := range rows {
			records = append(records, row.Value)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load the leases of cluster %s: %w", c.name, err)
	}
	return records, nil
}

// put stores what one durable action says.
func (c *cluster) put(tx *store.Tx, action ha.Action) error {
	switch a := action.(type) {
	case ha.Persist:
		_, err := leaseTable.PutEpoch(tx, c.key(a.Record.Guest), a.Record, a.Record.Epoch)
		return err
	case ha.Erase:
		err := leaseTable.Delete(tx, c.key(a.Guest))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	return fmt.Errorf("no way to store %T", action)
}

func (c *cluster) key(guest ha.GuestID) string {
	return c.id + "/" + strings.ReplaceAll(string(guest), "/", "_")
}

func (c *cluster) link(node ha.NodeID) *link {
	for _, l := range c.links {
		if l.node == node {
			return l
		}
	}
	return nil
}

func (c *cluster) remove(gone *link) {
	for i, l := range c.links {
		if l == gone {
			c.links = append(c.links[:i], c.links[i+1:]...)
			return
		}
	}
}
