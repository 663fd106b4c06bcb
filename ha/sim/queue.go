package sim

// queue is a heap of what will happen, the earliest first; what comes at the
// same instant keeps its order. (container/heap would allocate for every entry.)
type queue []entry

type entry struct {
	at     int64
	serial uint64
	run    func()
}

func (q queue) less(i, j int) bool {
	return q[i].at < q[j].at || (q[i].at == q[j].at && q[i].serial < q[j].serial)
}

func (q *queue) push(e entry) {
	*q = append(*q, e)
	list := *q
	for i := len(list) - 1; i > 0; {
		up := (i - 1) / 2
		if !list.less(i, up) {
			return
		}
		list[i], list[up] = list[up], list[i]
		i = up
	}
}

func (q *queue) pop() entry {
	list := *q
	first, last := list[0], len(list)-1
	list[0] = list[last]
	list[last].run = nil
	list = list[:last]
	*q = list
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			return first
		}
		if down+1 < last && list.less(down+1, down) {
			down++
		}
		if !list.less(down, i) {
			return first
		}
		list[i], list[down] = list[down], list[i]
		i = down
	}
}
