package ha

import (
	"encoding/binary"
	"math"
)

// digest collects a canonical encoding of a state. Times are written relative
// to now and cut off where they stop to matter, sequence numbers relative to
// the newest, so that states that behave alike look alike.
type digest struct {
	buf []byte
	now Time
	cap Time
}

func (d *digest) num(n uint64) { d.buf = binary.AppendUvarint(d.buf, n) }

func (d *digest) text(s string) {
	d.num(uint64(len(s)))
	d.buf = append(d.buf, s...)
}

func (d *digest) flags(bits ...bool) {
	n := uint64(0)
	for i, b := range bits {
		if b {
			n |= 1 << i
		}
	}
	d.num(n)
}

// time writes an age or a time left; beyond the cap either way is all the same.
func (d *digest) time(t Time) {
	if t == Forever {
		d.buf = binary.AppendVarint(d.buf, math.MaxInt64)
		return
	}
	d.buf = binary.AppendVarint(d.buf, int64(min(max(t-d.now, -d.cap), d.cap)))
}

func (d *digest) record(r Record) {
	d.text(string(r.Guest))
	d.num(r.Epoch)
	d.num(r.Rev)
	d.text(string(r.Owner))
	d.text(string(r.Standby))
	d.text(string(r.Arbiter))
	d.text(string(r.Level))
	d.text(string(r.Bound))
	d.num(r.Promised)
	d.flags(r.Run, r.Outdated, r.Gone, r.Taking, r.Handed, r.Alone)
}

func (d *digest) cluster(c Cluster) {
	d.num(c.Gen)
	for _, s := range []string{string(c.By), string(c.Nodes[0]), string(c.Nodes[1]), string(c.Mode), string(c.Witness), string(c.Bias), c.FenceDelay.String()} {
		d.text(s)
	}
}

func (d *digest) voter(v *voter) {
	d.text(string(v.self))
	d.num(v.boot)
	d.time(v.start)
	d.flags(v.broken, v.stored)
	d.num(uint64(len(v.guests)))
	for i := range v.guests {
		g := &v.guests[i]
		d.record(g.rec)
		d.flags(g.saved)
		d.time(g.granted)
		own := g.part
		if own == nil {
			own = &part{}
		}
		d.holding(&own.hold)
		d.candidacy(&own.cand)
	}
	d.num(uint64(len(v.scrub)))
	for _, id := range v.scrub {
		d.text(string(id))
	}
	d.num(uint64(len(v.senders)))
	for _, s := range v.senders {
		d.text(string(s.id))
		d.num(s.boot)
		d.num(s.seq)
	}
}

func (d *digest) holding(h *holding) {
	for _, t := range []Time{h.peer, h.witness, h.deadline, h.renewed, h.quiet, h.since} {
		d.time(t)
	}
	d.text(string(h.from))
	d.text(string(h.armFor))
	for _, n := range []uint64{h.peerRev, h.witnessRev, h.shotRev, h.offRev, h.goneBoot, h.goneBeat, h.arm, h.settled} {
		d.num(n)
	}
	d.flags(h.armSent, h.sure, h.takeSent, h.detach)
}

func (d *digest) candidacy(k *candidacy) {
	d.flags(k.ready, k.force, k.accept, k.shooting)
	for _, n := range []uint64{k.epoch, k.sequence, k.askFirst, k.claimID, k.claimTo, k.forceID} {
		d.num(n)
	}
	for _, t := range []Time{k.askedAt, k.claimAt, k.forceEnd} {
		d.time(t)
	}
}

// Digest is a canonical encoding of everything that influences what the core
// does from now on: equal digests mean equal behaviour. Notes already given and
// the undo state are left out.
func (c *Core) Digest(now Time) string {
	d := &digest{now: now, cap: max(c.window+Time(c.cluster.FenceDelay), Time(c.timing.Grace)) + 1}
	d.voter(&c.voter)
	d.cluster(c.cluster)
	d.flags(c.clusterSafe, c.clusterDisk == c.cluster, c.urgent, c.peerUp, c.knows, c.shot.heard)
	for _, n := range []uint64{c.seq, c.claims, c.arms, c.shot.last, c.shot.id, uint64(len(c.retry))} {
		d.num(n)
	}
	for _, t := range []Time{c.beatAt, c.thirdAt, c.peerBeat, c.lastTick, c.since, c.shot.again, c.shot.off} {
		d.time(t)
	}
	for _, s := range c.sent {
		if now-s.at <= Time(c.timing.Lease) {
			d.num(c.seq - s.seq)
			d.time(s.at)
		}
	}
	for _, k := range c.contacts {
		d.text(string(k.id))
		d.num(k.boot)
		d.time(k.at)
		d.time(k.back)
	}
	for _, a := range c.alarms {
		d.text(string(a.kind))
		d.text(string(a.guest))
	}
	return string(d.buf)
}

// Digest: see Core.Digest.
func (w *Witness) Digest(now Time) string {
	d := &digest{now: now, cap: w.window + 1}
	d.voter(&w.voter)
	for _, k := range w.claims {
		d.text(string(k.from))
		d.text(string(k.guest))
		d.num(k.boot)
		d.num(k.id)
		d.flags(k.refused)
	}
	return string(d.buf)
}
