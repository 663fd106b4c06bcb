package ha

import (
	"slices"
	"sort"
)

// voter is what a node and the witness have in common: the durable table of
// guests, the order of each sender's messages, and the list of actions of the
// step under way.
type voter struct {
	self   NodeID
	boot   uint64
	timing Timing
	window Time
	start  Time
	now    Time

	guests  []guest   // sorted by id
	node    bool      // guests have parts
	scrub   []GuestID // may be in the store and should not be
	senders []sender  // sorted by id
	broken  bool      // the last durable action failed
	stored  bool      // the step before had durable actions

	out []Action

	mutant mutant
}

// sender remembers the newest message of a voter, so that older ones that
// arrive late are dropped.
type sender struct {
	id        NodeID
	boot, seq uint64
}

// fewGuests is up to how many a voter's table has no room to spare.
const fewGuests = 16

func newVoter(self NodeID, boot uint64, t Timing, start Time, records []Record) voter {
	v := voter{self: self, boot: boot, timing: t, window: Time(t.Window()), start: start, now: start}
	for _, r := range records {
		g := v.add(r.Guest)
		g.rec, g.saved = r, true
	}
	return v
}

func (v *voter) index(id GuestID) (int, bool) {
	i := sort.Search(len(v.guests), func(i int) bool { return v.guests[i].rec.Guest >= id })
	return i, i < len(v.guests) && v.guests[i].rec.Guest == id
}

// find returns the guest or nil. The pointer is valid until the next add or
// remove.
func (v *voter) find(id GuestID) *guest {
	if i, ok := v.index(id); ok {
		return &v.guests[i]
	}
	return nil
}

func (v *voter) add(id GuestID) *guest {
	i, ok := v.index(id)
	if !ok {
		if n := len(v.guests); n == cap(v.guests) && n < fewGuests { // room for no more than there are
			v.guests = append(make([]guest, 0, n+1), v.guests...)
		}
		v.guests = slices.Insert(v.guests, i, guest{rec: Record{Guest: id}, granted: v.start})
		if v.node {
			v.guests[i].part = &part{}
		}
	}
	return &v.guests[i]
}

func (v *voter) remove(id GuestID) {
	if i, ok := v.index(id); ok {
		v.guests = slices.Delete(v.guests, i, i+1) // leaves no part behind, see copyGuests
		v.scrub = append(v.scrub, id)
	}
}

func (v *voter) do(a Action) { v.out = append(v.out, a) }

// fresh says whether a message is newer than everything handled from its
// sender, and remembers it.
func (v *voter) fresh(from NodeID, boot, seq uint64) bool {
	i := sort.Search(len(v.senders), func(i int) bool { return v.senders[i].id >= from })
	if i == len(v.senders) || v.senders[i].id != from {
		v.senders = append(v.senders, sender{})
		copy(v.senders[i+1:], v.senders[i:])
		v.senders[i] = sender{id: from}
	}
	s := &v.senders[i]
	if boot < s.boot || (boot == s.boot && seq <= s.seq) {
		return false
	}
	s.boot, s.seq = boot, seq
	return true
}

// flush ends a step: whatever differs from the store, which has what was before
// the step, is persisted before anything else happens. That is the only place
// where Persist comes from, so no message can leave ahead of the state it speaks
// of.
func (v *voter) flush(before *voter, durable []Action) []Action {
	for _, id := range v.scrub {
		durable = append(durable, Erase{Guest: id})
	}
	v.scrub = nil
	for i := range v.guests {
		g := &v.guests[i]
		if was := before.find(g.rec.Guest); !g.saved || was == nil || was.rec != g.rec {
			durable = append(durable, Persist{Record: g.rec})
			g.saved = true
		}
	}
	v.stored = len(durable) > 0
	list := append(durable, v.out...)
	if v.mutant.has(mutantSayBeforeStored) {
		list = append(v.out, durable...)
	}
	v.out = nil
	return list
}

// distrust marks everything the failed step tried to store as unknown: the
// store may hold the old or the new version. The next list begins by storing
// the present one again.
func (v *voter) distrust(failed *voter) {
	for i := range v.guests {
		g := &v.guests[i]
		f := failed.find(g.rec.Guest)
		if f == nil || f.rec != g.rec || !g.saved {
			g.saved = false
		}
	}
	for i := range failed.guests {
		if id := failed.guests[i].rec.Guest; v.find(id) == nil {
			v.scrub = append(v.scrub, id)
		}
	}
	v.broken = true
}

// copyTo makes dst an independent copy, reusing its memory.
func (v *voter) copyTo(dst *voter) {
	guests, senders, scrub := dst.guests, dst.senders, dst.scrub
	*dst = *v
	dst.guests = copyGuests(guests, v.guests)
	dst.senders = append(senders[:0], v.senders...)
	dst.scrub = append(scrub[:0], v.scrub...)
	dst.out = nil
}

// explain emits a note when the verdict about a guest changed.
func (v *voter) explain(g *guest, verdict Verdict, reason func() string) {
	if g.note != verdict {
		g.note = verdict
		v.do(Note{Guest: g.rec.Guest, Verdict: verdict, Reason: reason()})
	}
}
