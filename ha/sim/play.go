package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"vmctl/ha"
)

func newWorld(opt Options) *world {
	w := &world{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x9e3779b97f4a7c15)), timing: ha.DefaultTiming()}
	if w.opt.Mode == "" {
		w.opt.Mode = ha.ModeWitness
		if w.chance(0.1) {
			w.opt.Mode = ha.ModeNone
		}
	}
	for i, id := range []ha.NodeID{"node-a", "node-b", "witness-1", "witness-2"} {
		h := &host{
			w: w, index: i, id: id, power: true, records: map[ha.GuestID]ha.Record{},
			offset: w.between(time.Second, 1000*time.Second),
			ppm:    w.rng.Int64N(2*w.timing.DriftPPM+1) - w.timing.DriftPPM,
		}
		if w.chance(0.5) { // the extremes are the interesting ones
			h.ppm = w.timing.DriftPPM * (2*w.rng.Int64N(2) - 1)
		}
		h.cluster = ha.Cluster{Gen: 1, By: "node-a", Nodes: [2]ha.NodeID{"node-a", "node-b"}, Mode: ha.ModeNone}
		if w.opt.Mode == ha.ModeWitness {
			h.cluster.Mode, h.cluster.Witness = ha.ModeWitness, "witness-1"
		}
		w.hosts = append(w.hosts, h)
	}
	n := opt.Guests
	if n == 0 {
		n = 1 + w.rng.IntN(2)
	}
	for i := range n {
		w.guests = append(w.guests, newVolume(w, i))
	}
	for _, h := range w.hosts {
		h.machine = make([]machine, n)
	}
	w.noise()
	return w
}

// noise is the network's everyday behaviour.
func (w *world) noise() {
	loss, twice, slow := 0.0, 0.0, 0.0
	if !w.opt.Quiet && w.chance(0.5) {
		loss, twice, slow = w.rng.Float64()*0.1, w.rng.Float64()*0.2, w.rng.Float64()*0.1
	}
	for i := range w.net.links {
		for j := range w.net.links[i] {
			w.net.links[i][j] = link{loss: loss, twice: twice, slow: slow, lag: 3 * time.Second}
		}
	}
}

func (w *world) play() {
	for _, h := range w.hosts {
		h.startAgent()
	}
	for _, v := range w.guests {
		w.after(w.between(0, 500*time.Millisecond), func() { w.create(v) })
		w.after(w.between(0, 50*time.Millisecond), v.serve)
	}
	length := w.opt.Length
	if length == 0 {
		length = time.Duration(w.between(6*time.Second, 14*time.Second))
	}
	faults := w.opt.Script
	if faults == nil {
		faults = w.schedule(length, w.chance(0.3))
		if w.opt.Mode == ha.ModeNone && w.chance(0.7) {
			faults = w.promotion(faults)
		}
	}
	for _, f := range faults {
		w.after(int64(f.At), func() { w.begin(f) })
	}
	w.until(int64(length))
	w.heal()
	w.until(w.now + int64(16*time.Second))
	w.settled()
}

// promotion ends a schedule without a witness with an honest operator: the
// other node is off and stays off until all is well again.
func (w *world) promotion(faults []Fault) []Fault {
	where := w.rng.IntN(nodes)
	var kept []Fault
	for _, f := range faults {
		switch f.Kind {
		case AddWitness, DropWitness, HandOver:
			continue
		case PowerOff, CrashAgent:
			if f.Where == where {
				continue
			}
		}
		if f.At+f.For < 6*time.Second || f.Where != where {
			kept = append(kept, f)
		}
	}
	return append(kept, Fault{At: 6 * time.Second, Kind: PromoteOff, Where: where, For: time.Duration(w.between(2*time.Second, 5*time.Second))})
}

// heal ends every fault for good.
func (w *world) heal() {
	if w.fail != nil {
		return
	}
	w.logf("all faults end")
	w.calm = true
	for i := range w.net.links {
		for j := range w.net.links[i] {
			w.net.links[i][j] = link{cut: -1 << 20}
		}
	}
	for _, h := range w.hosts {
		h.broken, h.slow, h.paused = -1<<20, 0, 0
		h.powerOn()
		h.startAgent()
		h.drain()
	}
	for _, v := range w.guests {
		w.setRun(v, v.want) // a promotion may have lost the last word
		w.setLevel(v, ha.LevelResume)
	}
}

// settled checks that all is well a while after the faults.
func (w *world) settled() {
	if w.fail != nil {
		return
	}
	for _, v := range w.guests {
		if !v.exists {
			continue
		}
		n := 0
		for _, h := range w.hosts[:nodes] {
			if h.executes(v.index) {
				n++
			}
		}
		if v.want && n != 1 {
			w.violate("after healing %s runs on %d nodes\n%s", v.id, n, w.dump())
		}
		if v.want && !v.engine.attached {
			w.violate("after healing the replica of %s is not in sync\n%s", v.id, w.dump())
		}
	}
	a, b := w.hosts[0], w.hosts[1]
	if a.cluster != b.cluster {
		w.violate("after healing the nodes differ about the cluster: %+v, %+v", a.cluster, b.cluster)
	}
	for _, h := range w.hosts[:nodes] {
		for _, a := range h.step.(*ha.Core).Status().Alarms {
			// A guest removed while its owner was cut off may have been taken over.
			if a.Guest == "" || w.volume(a.Guest) != nil {
				w.violate("after healing %s has the alarm %v\n%s", h.id, a, w.dump())
			}
		}
	}
}

func (w *world) dump() string {
	text := ""
	for _, h := range w.hosts {
		for _, v := range w.guests {
			text += fmt.Sprintf("  %s %+v machine %+v\n", h.id, h.records[v.id], h.machine[v.index])
		}
	}
	return text
}
