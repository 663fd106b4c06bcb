package witness

import (
	"errors"
	"fmt"
	"time"

	"vmctl/ha"
)

// What one cluster may take of a witness, so that one that is broken or hostile
// costs the others nothing. Nodes stay far below.
const (
	maxLinks    = 4       // lease connections at once
	maxNodes    = 64      // names of nodes heard since the start
	maxGuests   = 1024    // records stored, and guests claimed
	maxID       = 128     // bytes of a guest's or node's id
	maxFrame    = 1 << 20 // bytes of one message
	maxRate     = 200     // messages a second on a connection
	maxBuffered = 4 << 20 // bytes of unfinished messages, all clusters together

	// silence ends a connection on which nothing came for so long, or that does
	// not take what is sent to it.
	silence = 5 * time.Second
)

var errLimit = errors.New("beyond what one cluster may take of a witness")

// bounds refuses a message that would make the cluster's core grow beyond its
// limits. It looks at sizes only.
func (c *cluster) bounds(m ha.Message) error {
	if err := c.known.node(m.Sender()); err != nil {
		return err
	}
	switch m := m.(type) {
	case ha.Heartbeat:
		for _, list := range [][]ha.Record{m.Renewals, m.Handovers} {
			if len(list) > maxGuests {
				return fmt.Errorf("a heartbeat with %d guests (limit %d): %w", len(list), maxGuests, errLimit)
			}
			for i := range list {
				if err := ids(string(list[i].Guest), string(list[i].Owner), string(list[i].Standby), string(list[i].Arbiter), string(list[i].Level)); err != nil {
					return err
				}
			}
		}
		return c.known.renewed(c.core, m.Renewals)
	case ha.Claim:
		if err := ids(string(m.Guest)); err != nil {
			return err
		}
		return c.known.claim(m.Sender(), m.Guest)
	}
	return nil
}

func ids(list ...string) error {
	for _, id := range list {
		if len(id) > maxID {
			return fmt.Errorf("an id of %d bytes (limit %d): %w", len(id), maxID, errLimit)
		}
	}
	return nil
}

// known counts what a core remembers for good. Maps are made when they are
// needed: most clusters have two nodes and never claim.
type known struct {
	nodes  []ha.NodeID
	claims map[claimant]struct{}
}

type claimant struct {
	node  ha.NodeID
	guest ha.GuestID
}

func (k *known) node(id ha.NodeID) error {
	for _, n := range k.nodes {
		if n == id {
			return nil
		}
	}
	if len(k.nodes) >= maxNodes {
		return fmt.Errorf("more than %d nodes: %w", maxNodes, errLimit)
	}
	k.nodes = append(k.nodes, id)
	return nil
}

func (k *known) claim(node ha.NodeID, guest ha.GuestID) error {
	who := claimant{node, guest}
	if _, again := k.claims[who]; again {
		return nil
	}
	if len(k.claims) >= maxGuests {
		return fmt.Errorf("claims of more than %d guests: %w", maxGuests, errLimit)
	}
	if k.claims == nil {
		k.claims = map[claimant]struct{}{}
	}
	k.claims[who] = struct{}{}
	return nil
}

// renewed refuses a heartbeat that would bring too many guests into the core.
func (k *known) renewed(core *ha.Witness, renewals []ha.Record) error {
	if n := core.Guests(); n+len(renewals) > maxGuests {
		for i := range renewals {
			if !core.Knows(renewals[i].Guest) {
				n++
			}
		}
		if n > maxGuests {
			return fmt.Errorf("%d guests (limit %d): %w", n, maxGuests, errLimit)
		}
	}
	return nil
}

// largest is the link that holds most: whoever fills what is everybody's loses
// it, not who comes with a little more.
func (p *loop) largest() (most *link) {
	for _, l := range p.links {
		if most == nil || l.counted > most.counted {
			most = l
		}
	}
	return most
}
