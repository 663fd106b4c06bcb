package node

import (
	"fmt"
	"time"

	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/snapshot/replicator"
)

// replicaView is what people see of the replica. A resync has a progress from 0
// to 1, and the time that is left if that is known.
func (g *guest) replicaView(p *snapshot.Protector) (phase string, progress float64, left time.Duration, resync *api.Resync) {
	g.mu.Lock()
	phase = g.status.phase
	g.mu.Unlock()
	if p == nil {
		return phase, 0, 0, nil
	}
	state := p.Disks()
	resync = resyncView(state)
	if phase != "resync" || state.Phase == replicator.Detached {
		return phase, 0, 0, resync
	}
	progress = 1
	if state.Total > 0 {
		progress = float64(state.Compared) / float64(state.Total)
	}
	return phase, progress, state.Remaining(time.Now()), resync
}

// resyncView is the resync under way, or the last one of the present link; without
// a link, what the next one has to do at least.
func resyncView(s replicator.State) *api.Resync {
	if s.Phase == replicator.Detached {
		return &api.Resync{DirtyBytes: s.Dirty}
	}
	kind := api.ResyncPartial
	if s.Full {
		kind = api.ResyncFull
	}
	return &api.Resync{Kind: kind, TotalBytes: s.Total, ComparedBytes: s.Compared, SentBytes: s.Sent, DirtyBytes: s.Dirty}
}

// resyncText says what a resync that is over was about.
func resyncText(s replicator.State) string {
	switch {
	case s.Phase == replicator.Detached || s.Total == 0 && !s.Full:
		return "nothing had to be compared"
	case s.Full:
		return fmt.Sprintf("all %d bytes of its disks were compared, %d sent", s.Total, s.Sent)
	}
	return fmt.Sprintf("%d bytes that had been written meanwhile were compared, %d sent", s.Total, s.Sent)
}
