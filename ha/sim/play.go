package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"vmctl/ha"
)

// modes is how often each mode is drawn.
var modes = []ha.Mode{
	ha.ModeWitness, ha.ModeWitness, ha.ModeWitness, ha.ModeWitness, ha.ModeWitness, ha.ModeWitness,
	ha.ModeFence, ha.ModeFence, ha.ModeBias, ha.ModeNone,
}

func newWorld(opt Options) *world {
	w := &world{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x9e3779b97f4a7c15)), timing: opt.Timing,
		removed: map[ha.GuestID]bool{},
	}
	if w.opt.Mode == "" {
		w.opt.Mode = modes[w.rng.IntN(len(modes))]
	}
	switch {
	case w.timing != ha.Timing{}:
	case opt.Script != nil:
		w.timing = ha.DefaultTiming()
	default:
		w.timing = w.drawTiming()
	}
	n := opt.Guests
	if n == 0 {
		n = 1 + w.rng.IntN(2)
	}
	for i, id := range []ha.NodeID{"node-a", "node-b", "witness-1", "witness-2"} {
		h := &host{
			w: w, index: i, id: id, power: true, records: map[ha.GuestID]ha.Record{}, machine: make([]machine, n),
			offset: w.between(time.Second, 1000*time.Second), ppm: w.drawRate(),
		}
		w.hosts = append(w.hosts, h)
	}
	c := w.configuration(ha.Cluster{Nodes: [2]ha.NodeID{"node-a", "node-b"}}, "node-a", w.opt.Mode, "witness-1")
	for _, h := range w.hosts {
		h.cluster = c
	}
	for i := range n {
		w.guests = append(w.guests, newVolume(w, i))
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
	faults := w.plan()
	end := int64(w.opt.Length)
	for _, f := range faults {
		w.after(int64(f.At), func() { w.begin(f) })
		if w.opt.Length == 0 {
			end = max(end, int64(f.At+time.Second))
		}
	}
	w.until(end)
	w.more()
	w.heal()
	w.recover()
}

// more strikes again until the schedule has the faults it should have: some
// found nothing to act on.
func (w *world) more() {
	for w.fail == nil && w.opt.Script == nil && w.opt.Length == 0 && w.stats.Faults < fewest {
		w.begin(w.draw(time.Duration(w.now), false))
		w.until(w.now + w.between(0, time.Second))
	}
}

// plan draws the schedule.
func (w *world) plan() []Fault {
	if w.opt.Script != nil {
		return w.opt.Script
	}
	rebind := w.chance(0.25) && !w.opt.Careless
	w.careless = w.opt.Careless || !rebind && w.opt.Mode == ha.ModeWitness && w.chance(0.2)
	faults := w.schedule(rebind)
	if (w.opt.Mode == ha.ModeNone && w.chance(0.7)) || (!w.careless && !w.opt.Duels && w.chance(0.07)) {
		faults = w.promotion(faults)
	}
	return faults
}

// heal ends every fault for good. A node that an operator keeps off comes back
// last, and meets the new owner before it meets a witness: see DESIGN.md, Known
// limits, Operator's word.
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
		h.broken, h.full, h.noDevice, h.stale = -1<<20, -1<<20, -1<<20, -1<<20
		h.slow, h.paused, h.lying = 0, 0, nil
		for i := range h.machine {
			h.machine[i].stopped = 0
		}
		if h.suspended > 0 {
			h.suspended = 1
			h.wake()
		}
		if h.held && !h.witness() {
			w.comeBack(h)
			continue
		}
		h.held = false
		h.powerOn()
		h.startAgent()
		h.drain()
	}
	for _, v := range w.guests {
		w.setRun(v, v.want) // a promotion may have lost the last word
		w.setLevel(v, v.kind)
	}
}

func (w *world) comeBack(h *host) {
	shun := func(n int) {
		for i := nodes; i < nodes+witnesses; i++ {
			w.cut(h.index, i, n)
			w.cut(i, h.index, n)
		}
	}
	shun(1 << 21)
	w.after(int64(2*time.Second), func() {
		h.held = false
		h.powerOn()
		h.startAgent()
	})
	w.after(int64(4*time.Second), func() { shun(-1 << 21) })
}

// Bounds of healing: what is late in the network arrives within the first; all
// must be well within the second. The slowest way is a failed shot just before: the
// next one comes after Grace (10 s), its head start (6.5 s) and the device (3 s),
// and the host that was shot is off for 8 s.
const (
	earliestHealed = 5 * time.Second
	latestHealed   = 30 * time.Second
)

// recover plays until all is well, within the bound.
func (w *world) recover() {
	begin := w.now
	w.until(begin + int64(earliestHealed))
	for w.fail == nil {
		trouble := w.unsettled()
		healing := time.Duration(w.now - begin)
		if trouble == "" {
			w.stats.LongestHealing = healing
			return
		}
		if healing >= latestHealed {
			w.violate("%v after healing %s", healing, trouble)
			return
		}
		w.until(w.now + int64(500*time.Millisecond))
	}
}

// unsettled says what is not yet as it should be without faults.
func (w *world) unsettled() string {
	for _, v := range w.guests {
		if !v.exists {
			return fmt.Sprintf("%s was not made\n%s", v.id, w.dump())
		}
		n := 0
		for _, h := range w.hosts[:nodes] {
			if h.executes(v.index) {
				n++
			}
		}
		if v.want && n != 1 {
			return fmt.Sprintf("%s runs on %d nodes\n%s", v.id, n, w.dump())
		}
		if v.want && (!v.engine.attached || v.live() == nil) {
			return fmt.Sprintf("the replica of %s is not in sync\n%s", v.id, w.dump())
		}
	}
	if left := w.orphan(); left != "" {
		return left
	}
	a, b := w.hosts[0], w.hosts[1]
	if a.cluster != b.cluster {
		return fmt.Sprintf("the nodes differ about the cluster: %+v, %+v", a.cluster, b.cluster)
	}
	for _, h := range w.hosts[:nodes] {
		if h.step == nil {
			return fmt.Sprintf("the agent of %s does not run", h.id)
		}
		for _, a := range h.step.(*ha.Core).Status().Alarms {
			// A guest removed while its owner was cut off may have been taken over.
			if a.Guest == "" || w.volume(a.Guest) != nil {
				return fmt.Sprintf("%s has the alarm %v\n%s", h.id, a, w.dump())
			}
		}
	}
	return ""
}

func (w *world) dump() string {
	text := ""
	for _, h := range w.hosts {
		for _, v := range w.guests {
			text += fmt.Sprintf("  %s %+v machine %+v\n", h.id, h.records[v.id], h.machine[v.index])
		}
	}
	for _, v := range w.guests {
		text += fmt.Sprintf("  %s engine of %v %+v replicas %+v numbered %+v\n", v.id, v.engine.host.name(), v.engine, v.replica, v.numbered)
	}
	return text
}
