package sim

import (
	"fmt"
	"maps"
	"time"

	"vmctl/ha"
)

// execute does a list of actions; a slow store interrupts it, and a crash may
// then cut it short.
func (h *host) execute(list []ha.Action) {
	life := h.life
	talked := false
	for i, a := range list {
		if h.life != life || h.w.fail != nil {
			return
		}
		if !durable(a) {
			talked = true
			h.act(a)
			continue
		}
		if talked {
			h.w.violate("%s: %s comes after an action that is not durable", h.id, describe(a))
		}
		if h.fails(a) {
			h.handle(ha.PersistFailed{Err: "simulated"})
			return
		}
		if h.w.scripted != nil {
			h.w.scripted.seen(h, a)
		}
		h.store(a)
		if h.w.chance(h.slow) {
			h.busy = true
			rest := list[i+1:]
			h.w.after(h.w.between(0, 3*time.Second), func() {
				if h.life == life {
					h.resume(rest, life)
				}
			})
			return
		}
	}
}

// fails says whether a durable action fails. A full store keeps nothing; from
// a broken one the write may have landed all the same.
func (h *host) fails(a ha.Action) bool {
	w := h.w
	if h.full <= 0 && (h.broken <= 0 || !w.chance(0.7)) {
		return false
	}
	w.stats.PersistFailures++
	for _, v := range w.guests {
		v.storeTrouble = true
	}
	if h.full <= 0 && w.chance(0.5) {
		h.store(a)
	}
	return true
}

func (h *host) resume(rest []ha.Action, life uint64) {
	if h.paused > 0 || h.suspended > 0 {
		h.w.after(int64(10*time.Millisecond), func() {
			if h.life == life {
				h.resume(rest, life)
			}
		})
		return
	}
	h.busy = false
	h.execute(rest)
	h.drain()
}

func durable(a ha.Action) bool {
	switch a.(type) {
	case ha.Persist, ha.PersistCluster, ha.Erase:
		return true
	}
	return false
}

func (h *host) store(a ha.Action) {
	switch a := a.(type) {
	case ha.Persist:
		if old, ok := h.records[a.Record.Guest]; ok && old.Epoch > a.Record.Epoch && h.broken == 0 && !old.Gone {
			if v := h.w.volume(a.Record.Guest); v != nil && !v.storeTrouble {
				h.w.violate("%s stores epoch %d of %s over epoch %d", h.id, a.Record.Epoch, a.Record.Guest, old.Epoch)
			}
		}
		h.records[a.Record.Guest] = a.Record
	case ha.PersistCluster:
		h.cluster = a.Cluster
	case ha.Erase:
		if r := h.records[a.Guest]; r.Gone && r.Owner == h.id {
			h.w.removed[a.Guest] = true
		}
		delete(h.records, a.Guest)
	}
}

// durably is what a host finds after a loss of power.
type durably struct {
	records  map[ha.GuestID]ha.Record
	cluster  ha.Cluster
	boot     uint64
	replicas []replica
}

// lie begins a time in which the store loses what it calls durable if the power
// goes. For the protocol that is a voter set back to an older state, which
// breaks the argument (see DESIGN.md, Known limits): only broken worlds do it.
func (h *host) lie() {
	d := &durably{records: maps.Clone(h.records), cluster: h.cluster, boot: h.boot}
	for _, v := range h.w.guests {
		if !h.witness() {
			d.replicas = append(d.replicas, v.replica[h.index])
		}
	}
	h.lying = d
}

// forget gives a host that loses power what its store kept.
func (h *host) forget() {
	d := h.lying
	if d == nil {
		return
	}
	h.records, h.cluster, h.boot, h.lying = d.records, d.cluster, d.boot, nil
	for i, r := range d.replicas {
		h.w.guests[i].replica[h.index] = r
	}
}

func (h *host) logStep(ev ha.Event, list []ha.Action) {
	if _, tick := ev.(ha.Tick); tick && len(list) == 0 {
		return
	}
	h.w.logf("%s @%d <- %T%+v", h.id, h.local(), ev, ev)
	for _, a := range list {
		h.w.logf("%s    -> %s", h.id, describe(a))
	}
}

func describe(a ha.Action) string { return fmt.Sprintf("%T%+v", a, a) }
