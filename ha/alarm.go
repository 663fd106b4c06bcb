package ha

import (
	"fmt"
	"sort"
)

// AlarmKind names a condition an operator should know of.
type AlarmKind string

// Alarm kinds.
const (
	AlarmPeer        AlarmKind = "peer-lost"
	AlarmWitness     AlarmKind = "witness-lost"
	AlarmMode        AlarmKind = "witness-not-in-force" // guests that nobody may claim yet
	AlarmUnprotected AlarmKind = "unprotected"          // the replica is not in sync
	AlarmLeaseLow    AlarmKind = "lease-expiring"
	AlarmLeaseOut    AlarmKind = "lease-expired"
	AlarmStorage     AlarmKind = "storage"
	AlarmClock       AlarmKind = "clock"
	AlarmPromise     AlarmKind = "promise-stuck" // a claim without an answer
	AlarmFence       AlarmKind = "fence-failed"
	AlarmNotTaken    AlarmKind = "not-taken-over" // a protected guest of a silent peer
)

type alarmKey struct {
	kind  AlarmKind
	guest GuestID
}

// alarm raises or clears a condition, once each.
func (c *Core) alarm(kind AlarmKind, guest GuestID, on bool, text string) {
	c.alarmWhy(kind, guest, on, func() string { return text })
}

// alarmWhy is alarm for a text that takes time to find: it is only asked for
// when the condition begins.
func (c *Core) alarmWhy(kind AlarmKind, guest GuestID, on bool, why func() string) {
	key := alarmKey{kind, guest}
	i := sort.Search(len(c.alarms), func(i int) bool {
		k := c.alarms[i]
		return k.kind > kind || (k.kind == kind && k.guest >= guest)
	})
	raised := i < len(c.alarms) && c.alarms[i] == key
	if raised == on {
		return
	}
	text := ""
	if on {
		text = why()
		c.alarms = append(c.alarms, alarmKey{})
		copy(c.alarms[i+1:], c.alarms[i:])
		c.alarms[i] = key
	} else {
		c.alarms = append(c.alarms[:i], c.alarms[i+1:]...)
	}
	c.do(Alarm{Kind: kind, Guest: guest, On: on, Text: text})
}

// watch raises and clears the alarms that follow from the state.
func (c *Core) watch() {
	peer, witness := c.peer(), c.cluster.witness()
	c.silence(AlarmPeer, peer)
	c.silence(AlarmWitness, witness)
	unleased := false
	for i := range c.guests {
		g := &c.guests[i]
		r := g.rec
		mine := r.Owner == c.self && !r.Gone
		unleased = unleased || (mine && c.wants(g) != "" && r.Bound != c.wants(g))
		c.alarm(AlarmUnprotected, r.Guest, mine && peer != "" && r.Run && r.Level != LevelNone && r.Outdated,
			"the replica on the peer is not in sync")
		left := c.deadline(g) - c.now
		leased := mine && r.Run && c.now-max(c.start, g.hold.since) > Time(c.timing.Lease)
		c.alarmWhy(AlarmLeaseOut, r.Guest, leased && left <= 0, func() string { return "the guest may not execute: " + c.whyUnleased(g) })
		c.alarm(AlarmLeaseLow, r.Guest, leased && left > 0 && left < Time(c.timing.Lease)/2, "the lease is about to end: neither the peer nor the witness acknowledges it")
		c.watchLost(g)
		stuck := r.Promised != 0 && g.cand.claimID != 0 && !c.hears(r.Arbiter)
		c.alarm(AlarmPromise, r.Guest, stuck, "a takeover was begun and the witness does not answer; the guest cannot run before it does")
	}
	c.alarmWhy(AlarmMode, "", unleased, c.whyNotInForce)
	if c.cluster.Mode != ModeFence || c.hears(peer) {
		c.alarm(AlarmFence, "", false, "") // there is nothing to switch off
	}
}

// watchLost raises an alarm for a guest that its user wants running and that,
// as far as this node can tell, runs nowhere.
func (c *Core) watchLost(g *guest) {
	r := &g.rec
	silent := c.now - max(c.contact(r.Owner).at, c.since)
	lost := r.Owner != c.self && r.Owner == c.peer() && !r.Gone && r.Run && r.Level != LevelNone && silent > c.window+Time(c.timing.Lease)
	c.alarmWhy(AlarmNotTaken, r.Guest, lost, func() string {
		if _, reason := c.obstacle(g); reason != nil {
			return fmt.Sprintf("%s is silent and its guest is not taken over: %s", r.Owner, reason())
		}
		return fmt.Sprintf("%s is silent and its guest is not taken over yet", r.Owner)
	})
}

func (c *Core) whyNotInForce() string {
	if c.cluster.Mode == ModeWitness {
		return "the witness is configured, but guests do not live under its leases yet"
	}
	return fmt.Sprintf("the mode %s is configured, but not in force for every guest yet", c.cluster.Mode)
}

func (c *Core) silence(kind AlarmKind, id NodeID) {
	if id == "" {
		c.alarm(kind, "", false, "")
		return
	}
	at := max(c.contact(id).at, c.since)
	if c.now-at <= c.window {
		c.alarm(kind, "", false, "")
		return
	}
	c.alarmWhy(kind, "", true, func() string { return fmt.Sprintf("%s was not heard for %s", id, age(c.now, at)) })
}

// clearAlarms ends the alarms of a guest that is removed.
func (c *Core) clearAlarms(id GuestID) {
	for i := len(c.alarms) - 1; i >= 0; i-- {
		if c.alarms[i].guest == id {
			c.alarm(c.alarms[i].kind, id, false, "")
		}
	}
}
