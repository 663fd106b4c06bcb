package model

import (
	"crypto/sha256"
	"runtime"
	"sync"

	"vmctl/ha"
)

// Bounds limit a search.
type Bounds struct {
	Depth   int // transitions from the first state
	Faults  int // faults and acts of people on one path
	Guests  int // 1 or 2; 0: 1
	Variant Variant
	Mode    ha.Mode // "": witness
	Only    []Kind  // nil: every kind of fault; else these
}

// Result is what a search found.
type Result struct {
	States, Transitions, Depth int
	Widest                     int      // states of the largest depth
	Violation                  string   // "": none
	Trace                      []string // a shortest one that leads to it
}

// node is a state on the path back to the first one.
type node struct {
	parent int32
	choice Choice
}

type next struct {
	world  *world
	choice Choice
	key    [16]byte
}

// Search visits every state within the bounds, nearest first. Its result does
// not depend on the number of processors.
func Search(b Bounds) Result {
	w := first(b)
	seen := map[[16]byte]struct{}{digest(w.key(nil)): {}}
	path := []node{{parent: -1}}
	level, index := []*world{w}, []int32{0}
	r := Result{States: 1}
	if w.bad != "" {
		r.Violation = w.bad
		return r
	}
	for depth := 1; depth <= b.Depth && len(level) > 0; depth++ {
		r.Depth = depth
		var after []*world
		var afterIndex []int32
		last := depth == b.Depth
		for at := 0; at < len(level); at += block {
			part := level[at:min(at+block, len(level))]
			for i, list := range expand(part, b) {
				for _, n := range list {
					r.Transitions++
					if _, old := seen[n.key]; old {
						continue
					}
					seen[n.key] = struct{}{}
					path = append(path, node{parent: index[at+i], choice: n.choice})
					if n.world.bad != "" {
						r.Violation = n.world.bad
						r.States = len(path)
						r.Trace = trace(b, path)
						return r
					}
					if !last {
						after = append(after, n.world)
						afterIndex = append(afterIndex, int32(len(path)-1))
					}
				}
			}
			clear(part) // what was expanded is not needed again
		}
		level, index = after, afterIndex
		r.Widest = max(r.Widest, len(level))
	}
	r.States = len(path)
	return r
}

const block = 1024

// expand makes every successor of some states, in order.
func expand(part []*world, b Bounds) [][]next {
	out := make([][]next, len(part))
	var wait sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for k := range workers {
		wait.Go(func() {
			var buf []byte
			for i := k; i < len(part); i += workers {
				w := part[i]
				for _, c := range w.choices(b) {
					n := w.copy()
					n.apply(c)
					buf = n.key(buf[:0])
					out[i] = append(out[i], next{n, c, digest(buf)})
				}
			}
		})
	}
	wait.Wait()
	return out
}

func digest(key []byte) (k [16]byte) {
	sum := sha256.Sum256(key)
	copy(k[:], sum[:])
	return k
}

// trace plays the way to the last state again and tells it.
func trace(b Bounds, path []node) []string {
	var way []Choice
	for at := int32(len(path) - 1); path[at].parent >= 0; at = path[at].parent {
		way = append(way, path[at].choice)
	}
	w := first(b)
	text := []string{w.summary("everything is well")}
	for i := len(way) - 1; i >= 0; i-- {
		what := w.describe(way[i])
		w.apply(way[i])
		text = append(text, w.summary(what))
	}
	return append(text, "VIOLATION: "+w.bad)
}
