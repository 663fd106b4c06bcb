package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"vmctl/ha"
)

// repeat plays a calm node without a core: it says to the witness what a core
// says that has nothing new, as often as one. A thousand pairs of real cores
// would take more of this machine than the witness does.
func (n *node) repeat(ctx context.Context, to ha.NodeID, guests int, after time.Duration) {
	hb := ha.Heartbeat{From: n.self, Boot: 1, Cluster: ha.Cluster{
		Gen: 1, By: "a", Nodes: [2]ha.NodeID{n.self, n.peer.self}, Mode: ha.ModeWitness, Witness: to,
	}}
	for range guests {
		hb.Renewals = append(hb.Renewals, ha.Record{
			Guest: ha.GuestID(uuid.NewString()), Epoch: 1, Rev: 3, Owner: n.self, Standby: n.peer.self, Arbiter: to,
			Run: true, Level: ha.LevelResume,
		})
	}
	timing := ha.DefaultTiming()
	next := time.NewTimer(after)
	defer next.Stop()
	for {
		select {
		case <-n.events: // answers, links up and down: nothing follows
		case <-next.C:
			hb.Seq++
			n.send(ha.Send{To: to, Message: hb})
			next.Reset(timing.Lease/3 + rand.N(timing.Tick)) // a core speaks at its next tick
		case <-ctx.Done():
			return
		}
	}
}
