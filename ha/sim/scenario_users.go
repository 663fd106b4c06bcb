package sim

import (
	"fmt"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

var guestVerbs = []verb{
	{words: "guest GUEST crash", about: "its QEMU dies by itself", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		for _, h := range st.w.hosts[:nodes] {
			if h.machine[v.index].alive {
				h.end(v)
				st.died(h, v, "QEMU died")
			}
		}
	}},
	{words: "guest GUEST broken", about: "each start of it fails from here on", do: func(st *stage, a args) {
		st.broken[a.guests[0]], st.brokenOn[a.guests[0]], st.resumeOnly[a.guests[0]] = "QEMU says no", "", false
	}},
	{words: "guest GUEST broken on NODE", about: "each start of it on that node fails", do: func(st *stage, a args) {
		st.broken[a.guests[0]], st.brokenOn[a.guests[0]], st.resumeOnly[a.guests[0]] = "QEMU says no", a.hosts[0], false
	}},
	{words: "guest GUEST unresumable", about: "its memory does not load, a boot works", do: func(st *stage, a args) {
		st.broken[a.guests[0]], st.brokenOn[a.guests[0]], st.resumeOnly[a.guests[0]] = "the state does not load", "", true
	}},
	{words: "guest GUEST repaired", about: "it starts again", do: func(st *stage, a args) {
		delete(st.broken, a.guests[0])
	}},
	{words: "guest GUEST idle", about: "it writes nothing from here on", do: func(st *stage, a args) {
		st.w.volume(a.guests[0]).busy = 0
	}},
	{words: "guest GUEST busy", about: "it writes again", do: func(st *stage, a args) {
		st.w.volume(a.guests[0]).busy = 1
	}},
}

var userVerbs = []verb{
	{words: "user create GUEST", about: "the guest of that name begins on its node", do: func(st *stage, a args) {
		for _, g := range st.set.guests {
			if h := st.host(g.on); g.id == a.guests[0] {
				st.ask(h, fmt.Sprintf("create %s on %s", g.id, g.on), nil, func(id uint64) ha.Event { return own(g, id) })
			}
		}
	}},
	{words: "user stop GUEST", about: "the wish is stored, then the guest ends", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		st.order("stop", v, func(id uint64) ha.Event { return ha.SetRun{ID: id, Guest: v.id} }, st.end(v))
	}},
	{words: "user start GUEST", about: "it shall run", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		if h, bad := st.ownerFor(v); bad == "" {
			if s := st.starterOf(h); s != nil {
				s.step(recovery.Ordered{ID: v.id})
			}
		}
		st.order("start", v, func(id uint64) ha.Event { return ha.SetRun{ID: id, Guest: v.id, Run: true} }, nil)
	}},
	{words: "user remove GUEST", about: "it is ended and removed for good", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		st.order("remove", v, func(id uint64) ha.Event { return ha.Forget{ID: id, Guest: v.id} }, st.end(v))
	}},
	{words: "user level GUEST LEVEL", about: "its protection is changed", do: func(st *stage, a args) {
		v, level := st.w.volume(a.guests[0]), ha.Level(a.words[0])
		st.order("level "+a.words[0]+" for", v, func(id uint64) ha.Event { return ha.SetLevel{ID: id, Guest: v.id, Level: level} }, nil)
	}},
	{words: "user promote GUEST on NODE [confirm-peer-off] [accept-outdated]", about: "an operator's word", do: func(st *stage, a args) {
		v, h := st.w.volume(a.guests[0]), st.host(a.hosts[0])
		v.manual = true
		text := fmt.Sprintf("promote %s on %s", v.id, h.id)
		refused := func(r ha.Reply) { v.manual = v.manual && (r.Code == ha.OK || r.Code == ha.CodeStorage) }
		st.ask(h, text, refused, func(id uint64) ha.Event {
			return ha.Promote{ID: id, Guest: v.id, ConfirmPeerOff: a.flags["confirm-peer-off"], AcceptOutdated: a.flags["accept-outdated"]}
		})
	}},
	{words: "user handover GUEST", about: "a last checkpoint, then the peer goes on with it", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		st.handOver("handover "+string(v.id), v, false, 0, nil)
	}},
	{words: "user migrate GUEST", about: "the memory is sent for three seconds, then the peer goes on with it", do: func(st *stage, a args) {
		v := st.w.volume(a.guests[0])
		st.handOver("migrate "+string(v.id), v, true, 3*time.Second, nil)
	}},
	{words: "user maintenance NODE on", about: "the node hands its guests over, one after the other", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		if !h.running() {
			st.answer(fmt.Sprintf("maintenance on %s", h.id), ha.Reply{Code: ha.CodeUnreachable, Text: "its agent does not answer"})
			return
		}
		st.upkeep[h] = true
		st.empty(h, st.w.guests, nil, nil)
	}},
	{words: "user maintenance NODE off", about: "the node takes guests again", do: func(st *stage, a args) {
		delete(st.upkeep, st.host(a.hosts[0]))
	}},
	{words: "user witness add WITNESS on NODE", about: "the cluster's third vote is this witness from now on", do: func(st *stage, a args) {
		st.configure(a.hosts[1], func(c *ha.Cluster) { c.Mode, c.Witness = ha.ModeWitness, a.hosts[0] })
	}},
	{words: "user witness remove on NODE", about: "the cluster has no third vote from now on", do: func(st *stage, a args) {
		st.configure(a.hosts[0], func(c *ha.Cluster) { c.Mode, c.Witness = ha.ModeNone, "" })
	}},
	{words: "user mode fence TIME on NODE", about: "a fencing device is the third vote; the time is the delay of who does not go first", do: func(st *stage, a args) {
		st.configure(a.hosts[0], func(c *ha.Cluster) { c.Mode, c.Witness, c.FenceDelay = ha.ModeFence, "", a.times[0] })
	}},
	{words: "user mode bias NODE on NODE", about: "the first node alone takes guests over, on its own vote", do: func(st *stage, a args) {
		st.configure(a.hosts[1], func(c *ha.Cluster) { c.Mode, c.Witness, c.Bias = ha.ModeBias, "", a.hosts[0] })
	}},
}

// ask gives a node's core a request, and logs what it replies.
func (st *stage) ask(h *host, text string, then func(ha.Reply), event func(id uint64) ha.Event) {
	if !h.power || !h.agent {
		st.answer(text, ha.Reply{Code: ha.CodeUnreachable, Text: fmt.Sprintf("the agent of %s does not answer", h.id)})
		return
	}
	st.lastAsk++
	st.asked[st.lastAsk] = request{text, then}
	h.deliver(event(st.lastAsk))
}

// ownerFor is the node that answers for a guest: the first node whose agent
// runs passes the user's request on to the owner it knows.
func (st *stage) ownerFor(v *volume) (*host, string) {
	for _, h := range st.w.hosts[:nodes] {
		if !h.running() {
			continue
		}
		r, known := h.records[v.id]
		switch {
		case !known:
			return nil, fmt.Sprintf("%s knows no such guest", h.id)
		case !st.reachable(h.id, r.Owner):
			return nil, fmt.Sprintf("the owner, %s, does not answer %s", r.Owner, h.id)
		}
		return st.host(r.Owner), ""
	}
	return nil, "no agent answers"
}

// order is a request to a guest's owner, wherever that is.
func (st *stage) order(word string, v *volume, event func(id uint64) ha.Event, then func(ha.Reply)) {
	text := fmt.Sprintf("%s %s", word, v.id)
	h, bad := st.ownerFor(v)
	if bad != "" {
		st.answer(text, ha.Reply{Code: ha.CodeUnreachable, Text: bad})
		return
	}
	st.ask(h, text, then, event)
}

// end stops a guest once the core has stored that it is to be stopped.
func (st *stage) end(v *volume) func(ha.Reply) {
	h, _ := st.ownerFor(v)
	return func(r ha.Reply) {
		if r.Code == ha.OK {
			h.end(v)
		}
	}
}

// configure changes the cluster on one node; the other one hears of it.
func (st *stage) configure(on ha.NodeID, change func(*ha.Cluster)) {
	h := st.host(on)
	n := h.cluster
	change(&n)
	n.Gen, n.By = n.Gen+1, on
	st.ask(h, clusterText(n), nil, func(id uint64) ha.Event { return ha.SetCluster{ID: id, Cluster: n} })
}

func clusterText(c ha.Cluster) string {
	return strings.TrimSpace(fmt.Sprintf("mode %s %s%s", c.Mode, c.Witness, c.Bias))
}
