package node

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/store"
)

// nodeState is what a node tells the other of itself, with every comparison of
// records.
type nodeState struct {
	Node        string `msgpack:"node"`
	Version     uint64 `msgpack:"version"` // rises with every change of the two below
	Maintenance bool   `msgpack:"maintenance"`
	Down        bool   `msgpack:"down"` // it was shut down on purpose
}

// announced says what keeps the node from taking guests, or that it may be away
// at any moment; empty: nothing.
func (s nodeState) announced() string {
	switch {
	case s.Down && s.Maintenance:
		return s.Node + " is in maintenance and was shut down"
	case s.Down:
		return s.Node + " was shut down"
	case s.Maintenance:
		return s.Node + " is in maintenance"
	}
	return ""
}

// neighbour tells a peer that is away because someone wanted it from one that
// failed. Nothing here decides about guests: leases do.
type neighbour struct {
	db      *store.DB
	alarms  *alarms
	journal *journal
	log     *slog.Logger

	storing sync.Mutex // held while the peer's word is taken

	mu    sync.Mutex
	state nodeState
	lost  bool   // the lease core does not hear it
	text  string // of the core
	away  bool   // lost, and that was announced
	kept  map[string][]keptDisks
}

// heardKept takes what the peer says of the disks that it keeps.
func (p *neighbour) heardKept(kept map[string][]keptDisks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = kept
}

// keptOf is what the peer said last of a guest's kept disks.
func (p *neighbour) keptOf(guest string) (node string, list []keptDisks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Node, p.kept[guest]
}

// load reads what the peer said last, perhaps to an earlier agent.
func (p *neighbour) load(name string) error {
	err := p.db.View(func(tx *store.Tx) error {
		row, err := peerTable.Get(tx, name)
		p.state = row.Value
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load what the peer said of itself: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reduced() // whether the peer is silent is not known yet
	return nil
}

// forget is called when the peer is another node, or the same made anew.
func (p *neighbour) forget(name string) error {
	p.storing.Lock()
	defer p.storing.Unlock()
	p.mu.Lock()
	p.state = nodeState{}
	p.judge()
	p.mu.Unlock()
	return p.db.Update(func(tx *store.Tx) error { return deleteIfThere(peerTable, tx, name) })
}

// heard takes what the peer says of itself. It may come late.
func (p *neighbour) heard(state nodeState) {
	p.storing.Lock()
	defer p.storing.Unlock()
	if state.Version <= p.state.Version && state.Node == p.state.Node {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.judge() // an earlier agent may have left the alarm that the peer is silent
		return
	}
	err := p.db.Update(func(tx *store.Tx) error {
		_, err := peerTable.Put(tx, state.Node, state)
		return err
	})
	if err != nil {
		p.log.Error("what the peer said of itself is not stored", "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	p.judge()
}

// silent is the lease core's word on whether the peer is heard.
func (p *neighbour) silent(lost bool, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost, p.text = lost, text
	p.judge()
}

// judge raises and ends the alarms about the peer. The lock must be held.
func (p *neighbour) judge() {
	state := p.state.announced()
	// A node that comes back says so before its heartbeats are heard, perhaps:
	// it stays expected until then.
	away := p.lost && (state != "" || p.away)
	if away != p.away {
		p.away = away
		if away {
			p.journal.record(info, "peer-away", "", fmt.Sprintf("%s, as expected: %s", p.text, state))
		} else {
			p.journal.record(info, "peer-back", "", "the peer is heard again")
		}
	}
	p.alarms.set(string(ha.AlarmPeer), "", p.lost && !away, p.text)
	p.reduced()
}

// reduced raises and ends the alarms that the peer announced. The lock must be
// held.
func (p *neighbour) reduced() {
	state := p.state.announced()
	p.alarms.set("peer-off", "", p.state.Down && !p.state.Maintenance, "protection is reduced: "+state+" on purpose")
	p.alarms.set("peer-maintenance", "", p.state.Maintenance, "protection is reduced: "+state)
}

// announced is what the peer said of itself that lasts, for people.
func (p *neighbour) announced() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.announced()
}

// refusal is why the peer is no target for a guest; nil: it is one. While it is
// up it takes over all the same when this node dies, for nobody else could.
func (p *neighbour) refusal() error {
	if state := p.announced(); state != "" {
		return errors.New("the peer takes no guests: " + state)
	}
	return nil
}

// word is the state of a member for people and programs.
func (p *neighbour) word() api.MemberState {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.state.Down:
		return api.MemberDown
	case p.state.Maintenance:
		return api.MemberMaintenance
	}
	return api.MemberInService
}
