package sim

import (
	"fmt"
	"time"

	"vmctl/ha"
)

// attempt is an order to create a guest. Each has an id of its own, as in the
// product: of one without a good answer nobody knows whether it stands.
type attempt struct {
	v    *volume
	id   ha.GuestID
	over bool // answered, or given up
}

// answerWithin is how long a user waits for the answer to an order to create.
const answerWithin = 500 * time.Millisecond

// create is a user who makes a guest on some node that runs, until one says it
// is there.
func (w *world) create(v *volume) {
	h := w.hosts[w.rng.IntN(nodes)]
	again := func() { w.create(v) }
	if !h.running() || h.busy || h.broken > 0 {
		w.after(int64(answerWithin), again)
		return
	}
	n := len(w.attempts)
	w.attempts = append(w.attempts, attempt{v: v, id: v.id})
	h.deliver(ha.Own{ID: uint64(idCreate + n), Record: ha.Record{Guest: v.id, Run: true, Level: v.kind}})
	if v.exists {
		return
	}
	w.after(int64(answerWithin), func() {
		if !v.exists {
			w.giveUp(n)
			v.rename()
			again()
		}
	})
}

// rename gives a guest to be made an id that no other had.
func (v *volume) rename() {
	v.names++
	v.id = ha.GuestID(fmt.Sprintf("g%d.%d", v.index, v.names))
}

// created is a core's answer to an attempt.
func (w *world) created(h *host, n int, r ha.Reply) {
	a := &w.attempts[n]
	switch {
	case a.over: // nobody waits for it any more
	case r.Code == ha.OK:
		a.over = true
		a.v.want, a.v.exists, a.v.silent, a.v.level = true, true, w.now, a.v.kind
	case r.Code != ha.CodeStorage:
		w.violate("%s does not create %s, which is new: %s", h.id, a.id, r.Text)
	}
}

// giveUp leaves an attempt whose guest may be there now or later: an orphan,
// which the user removes wherever one is seen.
func (w *world) giveUp(n int) {
	w.stats.Orphans++
	w.attempts[n].over = true
	id := w.attempts[n].id
	w.orphans = append(w.orphans, id)
	w.insist(func() bool {
		for _, h := range w.hosts[:nodes] {
			if r, ok := h.records[id]; ok && r.Owner == h.id && !r.Gone && h.running() && !h.busy {
				w.logf("the user removes %s, of which nobody said that it is there, from %s", id, h.id)
				h.deliver(ha.Forget{Guest: id})
			}
		}
		return false
	})
}

// orphan says where a guest is left of which nobody said that it is there.
func (w *world) orphan() string {
	for _, id := range w.orphans {
		for _, h := range w.hosts[:nodes] {
			if r, ok := h.records[id]; ok && !r.Gone {
				return fmt.Sprintf("%s still has %s, whose creation nobody confirmed: %+v", h.id, id, r)
			}
		}
	}
	return ""
}
