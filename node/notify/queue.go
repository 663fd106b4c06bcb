package notify

// mostQueued is how many deliveries wait for a target. The ends of alarms that
// the target heard of, or will, are kept beyond that: two an alarm at most.
const mostQueued = 512

// queue is what one target has not got yet, the oldest first. It is not safe
// for concurrent use.
type queue struct {
	items   []Delivery
	busy    bool // the first is being delivered
	dropped int  // lost, and not yet told
	lost    int  // ever
}

func (q *queue) add(d Delivery) {
	q.items = append(q.items, d)
	for len(q.items) > mostQueued && q.dropOne() {
	}
}

// dropOne makes room, and says whether there was something to drop.
func (q *queue) dropOne() bool {
	first := 0
	if q.busy {
		first = 1
	}
	for i := first; i < len(q.items); i++ {
		if q.items[i].State == Plain {
			q.drop(i)
			return true
		}
	}
	next := map[Delivery]int{} // the next delivery of the same alarm
	for i := len(q.items) - 1; i >= first; i-- {
		key := Delivery{Kind: q.items[i].Kind, VM: q.items[i].VM, Node: q.items[i].Node}
		later, ok := next[key]
		next[key] = i
		if !ok {
			continue
		}
		// A state told again is nothing new; an alarm that began and ended leaves
		// the target where it was.
		if q.items[i].State == q.items[later].State {
			q.drop(later)
			return true
		}
		if q.items[i].State == On {
			q.drop(later)
			q.drop(i)
			return true
		}
	}
	return false
}

func (q *queue) drop(i int) {
	q.items = append(q.items[:i], q.items[i+1:]...)
	q.dropped++
	q.lost++
}

// take is the oldest delivery; it stays in the queue until done.
func (q *queue) take() (Delivery, bool) {
	if len(q.items) == 0 {
		return Delivery{}, false
	}
	q.busy = true
	d := q.items[0]
	d.Dropped = q.dropped
	return d, true
}

// done ends what take began. A delivery that was refused is lost.
func (q *queue) done(d Delivery, refused bool) {
	q.items, q.busy = q.items[1:], false
	if refused {
		q.dropped++
		q.lost++
	} else {
		q.dropped -= d.Dropped
	}
}
