package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/snapshot"
)

// Alarms about the protection of a guest that runs here. That its replica is
// outdated, or its lease about to end, is the lease core's to say.
const (
	alarmProtection = "protection-failed" // it cannot be begun
	alarmResync     = "resync-failing"    // the peer is heard, and its replica does not become whole
	alarmCheckpoint = "checkpoint-late"   // the replica's disks are whole, and its memory grows old
)

// endAlarms ends alarms about a protection that is not wanted here any more. An
// agent that ends leaves them to the next.
func (g *guest) endAlarms(kinds ...string) {
	if g.n.guests.ending() {
		return
	}
	for _, kind := range kinds {
		g.n.alarms.set(kind, g.name(), false, "")
	}
}

// mostFailures is how often in a row the replica may fail to become whole
// before that is an alarm of its own.
const mostFailures = 3

// countFailure counts the attempts in a row that failed although the peer is
// heard: a peer that is away is alarmed already.
func (g *guest) countFailure(failures int, err error) int {
	g.mu.Lock()
	synced := g.status.phase == "synced"
	g.mu.Unlock()
	if synced {
		failures = 0
	}
	if !g.n.peerHeard() {
		return failures
	}
	if failures++; failures >= mostFailures {
		g.n.alarms.set(alarmResync, g.name(), true, fmt.Sprintf("the replica of %s does not become complete, after %d attempts: %v", g.name(), failures, err))
	}
	return failures
}

// Bounds of a checkpoint's age.
const (
	watchEvery   = 5 * time.Second
	lateAtLeast  = 30 * time.Second
	lateInterval = 20 // times the interval that the user wants
)

// watchCheckpoints alarms when the newest checkpoint of a guest whose replica
// counts is much older than it should be.
func (g *guest) watchCheckpoints(ctx context.Context, p *snapshot.Protector) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		synced := g.status.phase == "synced"
		g.mu.Unlock()
		age, late := lateness(synced, p.Last().Time, g.interval(), time.Now())
		g.n.alarms.set(alarmCheckpoint, g.name(), late,
			fmt.Sprintf("the newest checkpoint of %s on the peer was %s old: that much work would be lost", g.name(), age.Round(time.Second)))
	}
}

// lateness is how old the newest checkpoint is, and whether that is too much.
// Without one, or without a replica that counts, another alarm says so.
func lateness(synced bool, newest time.Time, interval time.Duration, now time.Time) (time.Duration, bool) {
	if !synced || newest.IsZero() {
		return 0, false
	}
	age := now.Sub(newest)
	return age, age > max(lateAtLeast, lateInterval*interval)
}
