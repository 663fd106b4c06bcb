package e2e

import (
	"errors"
	"flag"
	"strconv"
	"sync"
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// Labs are what the tests wait for, not processors: a lab and its guest's boot cost
// more than most tests that have them. So tests of which each leaves a lab in good
// order, and to which it is all the same what it has been through, hand it on.

// kind is a kind of labs.
type kind struct {
	prepare func(*lab.Lab) error // before the hosts are started
	flags   []string             // of the guest
}

var (
	// resumed have a guest that is taken over with its memory, and hosts of which a
	// test can fill the disk or change QEMU.
	resumed = &kind{prepare: changeable, flags: []string{"--protection", "resume"}}
	// restarted have a guest that is booted on the peer.
	restarted = &kind{prepare: plain, flags: []string{"--protection", "restart"}}
)

func plain(*lab.Lab) error { return nil }

// changeable gives each host so little room, of disk and memory, that a test can fill it, and the nodes a
// QEMU that can be changed.
func changeable(l *lab.Lab) error {
	for _, h := range l.Hosts() {
		if err := h.SmallDisk(512 << 20); err != nil {
			return err
		}
	}
	return errors.Join(l.A.SmallRAM(1<<30), l.B.SmallRAM(1<<30), l.A.ChangeableQEMU(), l.B.ChangeableQEMU())
}

// shelf gives labs to tests: so many at a time as -parallel says.
type shelf struct {
	mu      sync.Mutex
	room    int // labs that can be made beside those that are there
	expect  int // tests that will come before any is given a lab
	waiting []*waiter
	made    map[*kind]int
}

// waiter is a test that waits for a lab.
type waiter struct {
	kind *kind
	last bool        // what it leaves is of use to nobody
	lab  chan *bench // nil: it has to make one
}

var shared shelf

// open makes room for as many labs as tests were to run at a time. All tests run at
// once instead, and wait for theirs.
func (s *shelf) open() error {
	n, err := strconv.Atoi(flag.Lookup("test.parallel").Value.String())
	s.room, s.made = n, map[*kind]int{}
	return errors.Join(err, flag.Set("test.parallel", "1000"))
}

// take waits for a lab, and returns nil if the test has to make it. Until it is
// given back with give, nobody else has it or its place.
func (s *shelf) take(t *testing.T, k *kind, last bool) *bench {
	t.Helper()
	s.mu.Lock()
	s.expect++
	s.mu.Unlock()
	t.Parallel()
	w := &waiter{kind: k, last: last, lab: make(chan *bench, 1)}
	began := time.Now()
	s.mu.Lock()
	s.expect--
	s.waiting = append(s.waiting, w)
	s.grant()
	s.mu.Unlock()
	b := <-w.lab
	t.Logf("waited %v for its lab", time.Since(began).Round(time.Second))
	return b
}

// give hands a lab of a kind on, if it is not nil. It says whether somebody took it.
func (s *shelf) give(k *kind, b *bench) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.next(k); i >= 0 && b != nil {
		s.remove(i).lab <- b
		return true
	}
	return false
}

// gone makes room for another lab.
func (s *shelf) gone(k *kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room++
	s.made[k]--
	s.grant()
}

// grant lets tests make labs while there is room.
func (s *shelf) grant() {
	for s.expect == 0 && s.room > 0 && len(s.waiting) > 0 {
		k := s.neediest()
		s.room--
		s.made[k]++
		s.remove(s.next(k)).lab <- nil
	}
}

// neediest is the kind of which the next lab is made: one that has none yet, for
// those that have one go on anyhow; among equals that which most wait for.
func (s *shelf) neediest() *kind {
	count := map[*kind]int{}
	for _, w := range s.waiting {
		count[w.kind]++
	}
	best := s.waiting[0].kind
	for _, w := range s.waiting {
		if k := w.kind; s.made[k] < s.made[best] || s.made[k] == s.made[best] && count[k] > count[best] {
			best = k
		}
	}
	return best
}

// next is the waiter for a kind of lab who is to have the next one, -1: there is
// none. Who leaves nothing of use comes after all others.
func (s *shelf) next(k *kind) int {
	found := -1
	for i, w := range s.waiting {
		if w.kind == k && (found < 0 || s.waiting[found].last && !w.last) {
			found = i
		}
	}
	return found
}

func (s *shelf) remove(i int) *waiter {
	w := s.waiting[i]
	s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
	return w
}
