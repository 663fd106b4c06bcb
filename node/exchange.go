package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/store"
)

// purposeRecords names the connections on which the nodes compare what they
// know of guests and witnesses.
const purposeRecords = "records"

// exchangeEvery is how often the nodes compare without cause.
const exchangeEvery = 15 * time.Second

// knowledge is everything one node tells the other: idempotent, in any order,
// as often as one likes.
type knowledge struct {
	Guests    map[string]guestRecord `msgpack:"guests"`
	Witnesses []witnessInfo          `msgpack:"witnesses"`
	Node      nodeInfo               `msgpack:"node"`  // empty from an earlier version
	State     nodeState              `msgpack:"state"` // of the one who tells; empty from an earlier version
	Kept      map[string][]keptDisks `msgpack:"kept"`  // there, by guest
}

// nodeInfo is what a node says of itself. Older agents say nothing: then Memory
// is 0.
type nodeInfo struct {
	CPUs        int      `msgpack:"cpus"`
	Memory      int64    `msgpack:"memory"`          // bytes that guests may take
	Files       int64    `msgpack:"files,omitempty"` // size of the tmpfs that guests' memory is in
	Maintenance bool     `msgpack:"maintenance"`
	Room        int64    `msgpack:"room,omitempty"`  // bytes that are free for guests' disks
	Grows       bool     `msgpack:"grows,omitempty"` // it can make a replica's disks larger
	Alarm       string   `msgpack:"alarm"`           // that keeps guests from being moved there
	Running     []string `msgpack:"running"`         // UUIDs of the guests that run there
	// Standbys are of the guests it has a replica of, by UUID.
	Standbys map[string]sparing `msgpack:"standbys,omitempty"`
	// Fallbacks are what those replicas could go back to.
	Fallbacks map[string]fallback `msgpack:"fallbacks,omitempty"`
}

// exchange keeps both nodes' guest records alike.
type exchange struct {
	db      *store.DB
	members *membership
	changed func(id string, record guestRecord)
	self    func() nodeInfo
	tell    func() (nodeState, map[string][]keptDisks) // of this node
	heard   func(nodeState, map[string][]keptDisks)    // of the peer
	log     *slog.Logger
	kick    chan struct{} // capacity 1: compare soon

	// learning is held while something is learned, and while this node leaves its
	// cluster: who has left learns nothing from a comparison under way.
	learning sync.Mutex

	mu      sync.Mutex
	settled map[string]time.Time // when both nodes were seen to know of a removal
	theirs  nodeInfo             // the peer's last word about itself
	number  uint64               // of that word
}

// peer is the peer's last word about itself, and its number; 0: none yet.
func (x *exchange) peer() (nodeInfo, uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.theirs, x.number
}

func (x *exchange) soon() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

// run compares when kicked and now and then, until ctx ends.
func (x *exchange) run(ctx context.Context) {
	ticker := time.NewTicker(exchangeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-x.kick:
		}
		if _, ok := x.members.peer(); !ok {
			continue
		}
		if err := x.now(ctx); err != nil {
			x.log.Debug("records not compared", "error", err)
		}
	}
}

// now compares once and returns when both nodes know what the other knew.
func (x *exchange) now(ctx context.Context) error {
	ours, err := x.collect()
	if err != nil {
		return err
	}
	conn, err := x.members.dial(ctx, purposeRecords, "", wire.Options{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	var theirs knowledge
	if err := peer.Ask(conn, ours, &theirs); err != nil {
		return err
	}
	if err := x.learn(theirs); err != nil {
		return err
	}
	return x.bury(ours, theirs)
}

// serve answers the peer's comparison.
func (x *exchange) serve(_ context.Context, conn *wire.Conn, _ wire.Hello) {
	var theirs, ours knowledge
	err := peer.Answer(conn, &theirs, func() (any, error) {
		// Learned first: what both made at once is then seen by both.
		if err := x.learn(theirs); err != nil {
			return nil, err
		}
		var err error
		ours, err = x.collect()
		return ours, err
	})
	if err == nil {
		err = x.bury(ours, theirs)
	}
	if err != nil {
		x.log.Debug("records not compared", "error", err)
	}
}

func (x *exchange) collect() (knowledge, error) {
	record, _ := x.members.current()
	k := knowledge{Guests: map[string]guestRecord{}, Witnesses: record.Witnesses, Node: x.self()}
	k.State, k.Kept = x.tell()
	err := x.db.View(func(tx *store.Tx) error {
		for row, err := range guestTable.Prefix(tx, "") {
			if err != nil {
				return err
			}
			k.Guests[row.Key] = row.Value
		}
		return nil
	})
	return k, err
}

// learn takes over what the other node knows better.
func (x *exchange) learn(theirs knowledge) error {
	x.learning.Lock()
	defer x.learning.Unlock()
	if x.members.Identity() == nil {
		return errors.New("this node has left the cluster")
	}
	if err := x.members.addWitnesses(theirs.Witnesses); err != nil {
		return err
	}
	if other, ok := x.members.peer(); ok && other.Name == theirs.State.Node {
		x.heard(theirs.State, theirs.Kept)
	}
	news := map[string]guestRecord{}
	err := x.db.Update(func(tx *store.Tx) error {
		for id, record := range theirs.Guests {
			row, err := guestTable.Get(tx, id)
			known := err == nil
			if known && !record.newerThan(row.Value) || !known && record.Removed {
				continue
			}
			if _, err := guestTable.Put(tx, id, record); err != nil {
				return err
			}
			news[id] = record
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, record := range news {
		x.changed(id, record)
	}
	x.mu.Lock()
	x.theirs, x.number = theirs.Node, x.number+1
	x.mu.Unlock()
	return nil
}

// buryAfter is how long the record of a removed guest is kept although both
// nodes know: a comparison that began before the removal may still be under
// way, and would bring the guest back.
const buryAfter = 10 * time.Minute

// bury drops the records of removed guests that the other node has dropped, or
// knows to be removed, some time after that was seen.
func (x *exchange) bury(ours, theirs knowledge) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var gone []string
	for id, record := range ours.Guests {
		other, known := theirs.Guests[id]
		if !record.Removed || known && !other.Removed {
			continue
		}
		since, seen := x.settled[id]
		switch {
		case !seen:
			x.settled[id] = time.Now()
		case time.Since(since) > buryAfter:
			gone = append(gone, id)
			delete(x.settled, id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return x.db.Update(func(tx *store.Tx) error {
		for _, id := range gone {
			if err := deleteIfThere(guestTable, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}
