package sim

import (
	"time"

	"vmctl/ha"
)

// uptime is what a host's clock shows when its agent starts after a boot.
const uptime = 10 * time.Second

var hostVerbs = []verb{
	{words: "HOST power off", about: "the host loses power with all that runs on it", do: func(st *stage, a args) {
		st.powerOff(st.host(a.hosts[0]))
	}},
	{words: "HOST power on", about: "the host boots; its clock begins anew and its agent starts", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		if !h.power {
			h.offset = int64(uptime) - st.w.now - st.w.now/1_000_000*h.ppm
			h.power = true
		}
		h.startAgent()
	}},
	{words: "HOST agent stop", about: "the agent ends; guests and guards stay", do: func(st *stage, a args) {
		st.host(a.hosts[0]).stopAgent()
	}},
	{words: "HOST agent start", about: "the agent starts and adopts what runs", do: func(st *stage, a args) {
		st.host(a.hosts[0]).startAgent()
	}},
	{words: "HOST agent restart TIME", about: "the agent is away for so long, as in an upgrade", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		h.stopAgent()
		st.after(a.times[0], func() {
			st.say(string(h.id), "the agent is back")
			h.startAgent()
		})
	}},
	{words: "HOST agent pause", about: "the agent gets no processor time (SIGSTOP)", do: func(st *stage, a args) {
		st.host(a.hosts[0]).paused++
	}},
	{words: "HOST agent continue", about: "the agent goes on with what has queued up", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		h.paused = 0
		h.drain()
	}},
	{words: "NODE suspend", about: "the host sleeps: agent, guards and guests stand still, the clock goes on", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		h.suspended = 1
	}},
	{words: "NODE wake", about: "the host wakes up", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		if h.suspended > 0 {
			h.wake()
		}
	}},
	{words: "HOST store full", about: "nothing can be stored durably any more", do: func(st *stage, a args) {
		st.host(a.hosts[0]).full = 1
	}},
	{words: "HOST store slow", about: "storing a record takes three seconds", do: func(st *stage, a args) {
		st.host(a.hosts[0]).slow = 1
	}},
	{words: "HOST store ok", about: "the store works again", do: func(st *stage, a args) {
		h := st.host(a.hosts[0])
		h.full, h.slow = 0, 0
	}},
	{words: "HOST clock back TIME", about: "the host's monotonic clock, which never should, goes back", do: func(st *stage, a args) {
		st.host(a.hosts[0]).offset -= int64(a.times[0])
	}},
	{words: "device of NODE fails", about: "the device that switches the node off does not answer", do: func(st *stage, a args) {
		st.device[a.hosts[0]] = "the device does not answer"
	}},
	{words: "device of NODE works", about: "the device answers again", do: func(st *stage, a args) {
		delete(st.device, a.hosts[0])
	}},
}

// fencing is how long a device takes to switch a host off and confirm it.
const fencing = time.Second

// fence is the device's part: it switches the host off, whatever becomes of the
// node that ordered it.
func (st *stage) fence(h *host, a ha.Fence) {
	st.say(string(h.id), "has %s switched off", a.Node)
	life := h.life
	st.after(fencing, func() {
		fault := st.device[a.Node]
		if target := st.host(a.Node); fault == "" && target.power {
			st.say("device", "%s is switched off", a.Node)
			st.powerOff(target)
		}
		if h.life == life {
			h.deliver(ha.Fenced{ID: a.ID, OK: fault == "", Err: fault})
		}
	})
}

func (st *stage) powerOff(h *host) {
	h.powerOff()
	h.paused = 0
}

var linkVerbs = []verb{
	{words: "link HOST HOST cut", about: "nothing passes either way", do: func(st *stage, a args) { st.link(a, 1, 1) }},
	{words: "link HOST HOST restore", about: "the link works again, both ways", do: func(st *stage, a args) { st.link(a, 0, 0) }},
	{words: "link HOST to HOST cut", about: "nothing passes from the first to the second", do: func(st *stage, a args) { st.link(a, 1, -1) }},
	{words: "link HOST to HOST restore", about: "the link works again from the first to the second", do: func(st *stage, a args) { st.link(a, 0, -1) }},
	{words: "link HOST HOST slow TIME", about: "every message takes so long", do: func(st *stage, a args) { st.lag(a, a.times[0]) }},
	{words: "link HOST HOST fast", about: "messages take 2 ms again", do: func(st *stage, a args) { st.lag(a, 0) }},
	{words: "link HOST HOST flap TIME for TIME", about: "the link is cut and restored in turn, each for the first time", do: func(st *stage, a args) {
		st.flap(a, true, st.w.now+int64(a.times[1]))
	}},
	{words: "switch off", about: "all hosts lose sight of each other", do: func(st *stage, _ args) { st.flip(true) }},
	{words: "switch on", about: "the switch works again", do: func(st *stage, _ args) { st.flip(false) }},
}

// link sets both directions of a link: 1 cut, 0 restored, -1 as it is.
func (st *stage) link(a args, there, back int) {
	from, to := st.host(a.hosts[0]).index, st.host(a.hosts[1]).index
	for _, d := range []struct{ from, to, cut int }{{from, to, there}, {to, from, back}} {
		if d.cut >= 0 && d.from != d.to {
			st.severed[d.from][d.to] = d.cut == 1
		}
	}
	st.wire()
}

// wire gives the network what links and the switch let through.
func (st *stage) wire() {
	for i := range st.w.net.links {
		for j := range st.w.net.links[i] {
			cut := 0
			if st.switched || st.severed[i][j] {
				cut = 1
			}
			st.w.net.links[i][j].cut = cut
		}
	}
}

func (st *stage) flip(off bool) {
	st.switched = off
	st.wire()
}

func (st *stage) lag(a args, d time.Duration) {
	from, to := st.host(a.hosts[0]).index, st.host(a.hosts[1]).index
	for _, l := range []*link{&st.w.net.links[from][to], &st.w.net.links[to][from]} {
		l.slow, l.lag = 0, d
		if d > 0 {
			l.slow = 1
		}
	}
}

func (st *stage) flap(a args, cut bool, end int64) {
	if st.w.now >= end {
		st.link(a, 0, 0)
		st.say("==", "the flapping ends")
		return
	}
	down := 0
	if cut {
		down = 1
	}
	st.link(a, down, down)
	st.after(a.times[0], func() { st.flap(a, !cut, end) })
}

// reachable says whether a node passes requests on to another now.
func (st *stage) reachable(from, to ha.NodeID) bool {
	a, b := st.host(from), st.host(to)
	return from == to && a.running() || st.w.linked(a, b)
}
