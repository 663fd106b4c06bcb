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

	oldest uint64 // the first position of those that dropped counts; 0: none
	late   uint64 // and of those lost since take
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
	q.miss(1, q.items[i].position)
	q.items = append(q.items[:i], q.items[i+1:]...)
}

// miss counts losses, the first of which is at position.
func (q *queue) miss(count int, position uint64) {
	q.dropped += count
	q.lost += count
	q.oldest, q.late = earlier(q.oldest, position), earlier(q.late, position)
}

// earlier is the smaller position; 0 is none.
func earlier(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// settled is the position up to which nothing waits, and no loss is untold, if
// last is the newest.
func (q *queue) settled(last uint64) uint64 {
	if q.oldest > 0 {
		last = min(last, q.oldest-1)
	}
	for _, d := range q.items {
		if d.position > 0 {
			last = min(last, d.position-1)
		}
	}
	return last
}

// take is the oldest delivery; it stays in the queue until done.
func (q *queue) take() (Delivery, bool) {
	if len(q.items) == 0 {
		return Delivery{}, false
	}
	q.busy, q.late = true, 0
	d := q.items[0]
	d.Dropped = q.dropped
	return d, true
}

// done ends what take began. A delivery that was refused is lost.
func (q *queue) done(d Delivery, refused bool) {
	q.items, q.busy = q.items[1:], false
	if refused {
		q.miss(1, d.position)
		return
	}
	q.dropped -= d.Dropped
	q.oldest = q.late
}
