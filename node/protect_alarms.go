package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/snapshot"
)

// Alarms about a guest of this node. That its replica is outdated, or its lease
// about to end, is the lease core's to say.
const (
	alarmStart      = "guest-failed"      // it is to run, and does not start
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

// The replica fails to become whole when so many attempts in a row, over so long
// a time, failed although the peer was heard. A peer that has just died, or was
// just started, is heard and does not answer for a moment.
const (
	mostFailures = 3
	failingFor   = 15 * time.Second
)

// failures are attempts in a row that failed while the peer was heard.
type failures struct {
	count int
	since time.Time
}

// countFailure counts one more, and alarms. A peer that is away is alarmed
// already: it begins the count anew.
func (g *guest) countFailure(f failures, err error, now time.Time) failures {
	g.mu.Lock()
	synced := g.status.phase == "synced"
	g.mu.Unlock()
	if !g.n.peerHeard() {
		return failures{}
	}
	if synced || f.count == 0 {
		f = failures{since: now}
	}
	if f.count++; f.count >= mostFailures && now.Sub(f.since) >= failingFor {
		g.n.alarms.set(alarmResync, g.name(), true, fmt.Sprintf("the replica of %s does not become complete, after %d attempts: %v", g.name(), f.count, err))
	}
	return f
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
