package sim

import "time"

// duel cuts one node off for about the time after which the other claims its
// guests, lets the two meet again while the claim is under way, and sometimes
// restarts a voter in the middle.
func (w *world) duel(at time.Duration) []Fault {
	a := w.rng.IntN(nodes)
	b, third := 1-a, nodes
	window := w.timing.Window()
	switch w.rng.IntN(6) {
	case 0, 1:
		return w.restartDuel(at, a, b, third)
	case 2:
		return w.ghostDuel(at, a, b, third)
	case 3:
		return w.twinDuel(at, a, b, third)
	}
	meet := time.Duration(w.between(window-200*time.Millisecond, window+900*time.Millisecond))
	list := []Fault{
		{At: at, Kind: CutLink, Where: a, Other: third, For: time.Duration(w.between(window, 3*window))},
		{At: at, Kind: CutLink, Where: a, Other: b, For: meet},
	}
	if w.chance(0.7) {
		lag := time.Duration(w.between(100*time.Millisecond, 2*time.Second))
		from, to := b, third
		if w.chance(0.5) {
			from, to = to, from
		}
		list = append(list, Fault{At: at + meet - time.Duration(w.between(0, time.Second)), Kind: LaggyLink, Where: from, Other: to, For: lag})
	}
	if w.chance(0.5) {
		list = append(list, Fault{At: at, Kind: StaleClock, Where: []int{b, third}[w.rng.IntN(2)], For: 2 * window})
	}
	if w.chance(0.5) {
		list = append(list, Fault{
			At: at + meet + time.Duration(w.between(-300*time.Millisecond, 900*time.Millisecond)), Kind: CrashAgent,
			Where: []int{a, b, third}[w.rng.IntN(3)], For: time.Duration(w.between(time.Millisecond, 500*time.Millisecond)),
		})
	}
	return list
}

// restartDuel: the owner lives on the third voter's leases, which then restarts
// and soon hears the owner no more.
func (w *world) restartDuel(at time.Duration, a, b, third int) []Fault {
	window := w.timing.Window()
	return []Fault{
		{At: at, Kind: CutLink, Where: a, Other: b, For: 3 * window},
		{At: at + window, Kind: CutLink, Where: a, Other: third, For: 2 * window},
		{At: at + window + time.Duration(w.between(0, 300*time.Millisecond)), Kind: CrashAgent, Where: third, For: 10 * time.Millisecond},
	}
}

// ghostDuel: the third voter hears the owner just when the claim comes and
// refuses it; a copy of the claim stays in the network until the owner lives on
// the other node's leases alone.
func (w *world) ghostDuel(at time.Duration, a, b, third int) []Fault {
	window := w.timing.Window()
	meet := window + time.Duration(w.between(100*time.Millisecond, 500*time.Millisecond))
	again := meet + time.Duration(w.between(50*time.Millisecond, 500*time.Millisecond))
	list := []Fault{
		{At: at, Kind: CutLink, Where: a, Other: b, For: again},
		{At: at, Kind: CutLink, Where: a, Other: third, For: meet - time.Duration(w.between(0, 200*time.Millisecond))},
		{At: at + window, Kind: CopyLink, Where: b, Other: third, For: time.Duration(w.between(window, 3*window))},
		{At: at + again, Kind: CutLink, Where: a, Other: third, For: 3 * window},
	}
	if w.chance(0.5) {
		list = append(list, Fault{At: at + again, Kind: CrashAgent, Where: third, For: 10 * time.Millisecond})
	}
	return list
}

// twinDuel: the owner's agent restarts twice while acknowledgements are late, so
// that two incarnations number their heartbeats alike; then it is cut off.
func (w *world) twinDuel(at time.Duration, a, b, third int) []Fault {
	window := w.timing.Window()
	second := at + time.Second + time.Duration(w.between(200*time.Millisecond, time.Second))
	return []Fault{
		{At: at, Kind: CutLink, Where: a, Other: third, For: 4 * window},
		{At: at + 900*time.Millisecond, Kind: CopyLink, Where: b, Other: a, For: time.Duration(w.between(200*time.Millisecond, 2*time.Second))},
		{At: at + time.Second, Kind: CrashAgent, Where: a, For: 5 * time.Millisecond},
		{At: second, Kind: CrashAgent, Where: a, For: 5 * time.Millisecond},
		{At: second + time.Duration(w.between(0, time.Second)), Kind: CutLink, Where: a, Other: b, For: 2 * window},
	}
}
