package node

import (
	"errors"
	"sync"

	"vmctl/node/api"
	"vmctl/store"
)

// self is what this node has on record of itself. It is durable before it is
// seen.
type self struct {
	db *store.DB

	mu     sync.Mutex
	record nodeRecord
}

// countStart counts this start of the agent durably: the lease protocol tells
// incarnations apart by it. A node that was shut down is up again.
func countStart(db *store.DB, name string) (*self, error) {
	s := &self{db: db}
	err := db.Update(func(tx *store.Tx) error {
		row, err := nodeTable.Get(tx, only)
		switch {
		case errors.Is(err, store.ErrNotFound):
			row.Value.Name = name
		case err != nil:
			return err
		case row.Value.Name != name:
			return api.Errorf(api.Conflict, "start the agent as %s: this state directory is node %s's", name, row.Value.Name).
				WithHint("Use --name %s, or another --state-dir.", row.Value.Name)
		}
		s.record = row.Value
		s.record.Boot++
		if s.record.Down {
			s.record.Down = false
			s.record.Version++
		}
		_, err = nodeTable.Put(tx, only, s.record)
		return err
	})
	return s, err
}

func (s *self) current() nodeRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// change stores what the peer is to know of this node.
func (s *self) change(change func(*nodeRecord)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.record
	change(&record)
	record.Version++
	err := s.db.Update(func(tx *store.Tx) error {
		_, err := nodeTable.Put(tx, only, record)
		return err
	})
	if err == nil {
		s.record = record
	}
	return err
}

func (s *self) maintenance() bool { return s.current().Maintenance }
